#pragma once
// HTTP/1.1 requests from bytes as they come, within limits.
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace drydock::runtime {

// What the server looks at of a request. Header values are empty where the header is not there.
struct HttpRequest {
  std::string method, path;  // path: the target up to "?"
  std::string authorization, content_type, content_encoding, trace_parent, request_id, timeout;
  std::string body;
  bool keep_alive = true;
  bool chunks = true;  // understands chunked bodies: HTTP/1.1
};

struct HttpRefusal {
  int status = 400;
  std::string message;
};

class HttpParser {
 public:
  HttpParser(size_t header_bytes, size_t body_bytes);
  ~HttpParser();

  // Takes from the front of `bytes` as much as belongs to the request, and says how many. Bytes of an unfinished head
  // are not taken: they must come again, with more.
  size_t put(std::string_view bytes);
  bool begun() const;  // something of the request was seen
  bool head_done() const;
  size_t body_bytes() const;    // of the body, so far
  bool wants_continue() const;  // the client waits for "100 Continue" before its body
  bool done() const;
  const std::optional<HttpRefusal>& refusal() const { return refusal_; }  // then the connection can't go on
  HttpRequest head() const;                                               // once it is done, without the body
  HttpRequest take();                                                     // of a done one
  void reset();                                                           // for the next request

 private:
  struct Impl;
  size_t header_bytes_, body_bytes_;
  std::unique_ptr<Impl> impl_;
  std::optional<HttpRefusal> refusal_;
};

// "Not Found" for 404.
std::string_view status_text(int status);

}  // namespace drydock::runtime
