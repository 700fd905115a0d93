#pragma once
// A server that answers as it is told to, at known times: what clients of OpenAI-compatible servers are tested against.
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace drydock::tests {

struct FakeAnswer {
  struct Piece {
    double at_ms;  // after the request was there
    std::string bytes;
  };
  int status = 200;
  std::string headers;  // more of them, each with CRLF
  std::vector<Piece> pieces;
  bool breaks = false;  // the connection is closed after the last piece, in the middle of the answer

  // A stream of `tokens` events, the first after `first_ms`, one every `gap_ms`, with usage and [DONE] at its end.
  static FakeAnswer stream(int tokens, double first_ms, double gap_ms, int prompt_tokens = 1);
};
std::string fake_event(const std::string& json);  // as server-sent
extern const char kFakeToken[];                   // JSON of a chunk of one token

// On a port of 127.0.0.1 that the system chooses; one thread.
class FakeServer {
 public:
  using Script = std::function<FakeAnswer(const std::string& path, const std::string& body)>;
  explicit FakeServer(Script script);
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  struct Loop;
  void run();

  Script script_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> ends_{false};
  std::thread thread_;
};

}  // namespace drydock::tests
