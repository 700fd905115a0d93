#pragma once
// A client that sends bytes as given and reads what comes, for tests of servers.
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::tests {

struct Response {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks put together
  std::vector<std::string> events() const;     // what follows "data: "
};

class RawClient {
 public:
  explicit RawClient(int port, int receive_buffer = 0);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool send(std::string_view bytes);  // false: the other side has closed
  // The next response; nullopt when the connection ended or 5 s passed before it was whole.
  std::optional<Response> read(bool head_only = false);
  // Waits until that much of a stream's raw bytes has come, or the end.
  std::string read_until(std::string_view text);
  bool closed_within(std::chrono::milliseconds time);  // reads and drops what comes
  void reset();                                        // closes with a reset instead of an end
  void close();
  int descriptor() const { return socket_; }

 private:
  bool more();
  int socket_ = -1;
  std::string in_;
};

std::string post(std::string_view path, std::string_view body, std::string_view headers = "");
std::string get(std::string_view path, std::string_view headers = "");

}  // namespace drydock::tests
