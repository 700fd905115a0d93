#pragma once
// The OpenAI-compatible HTTP/1.1 server in front of a Service: docs/http.md lists endpoints, fields and limits.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/request_log.h"
#include "runtime/service.h"
#include "runtime/text_codec.h"

namespace drydock::runtime {

// What strangers can make the server hold or wait for. Times in seconds.
struct HttpLimits {
  size_t header_bytes = 16 << 10;      // else 431
  size_t body_bytes = 8 << 20;         // else 413; core/json.h bounds its depth
  size_t bodies_bytes = 256 << 20;     // that have come of all requests together; who sends more is told 503
  int connections = 4096;              // more are told 503 and closed
  int connections_per_address = 4096;  // more are told 429 and closed; a proxy's clients share one
  int choices = 16;                    // answers of one request: prompts x n
  size_t unsent_bytes = 1 << 20;       // of a stream whose client does not read, beside the kernel's 128 KiB: then cut
  double header_s = 10, body_s = 30;   // to send a request's head and, from there, its body: else 408
  double idle_s = 75;                  // between two requests of a connection
  double write_stall_s = 30;           // without a byte taken by the client: then cut
  double vanished_s = 30;              // without a sign of the client's machine, though asked for one: then cut
  double generation_s = 0;             // of every request; clients can ask for less. 0: none
};

struct HttpOptions {
  std::string host = "127.0.0.1";     // a numeric address; "0.0.0.0" or "::" for all
  int port = 8000;                    // 0: any free one
  std::vector<std::string> models;    // names that requests may give; the first is the canonical one. Not empty
  std::vector<std::string> api_keys;  // bearer keys for /v1, /tokenize and /detokenize; empty: none needed. api_keys.h
  std::string version = "0";          // for /version
  int threads = 2;                    // that serve connections
  HttpLimits limits;
  LogOptions log;
};

class HttpServer {
 public:
  // Service and codec must outlive the server. Throws core::Error on options that can't be.
  HttpServer(Service& service, const TextCodec& codec, HttpOptions options);
  ~HttpServer();  // stops
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Listens and serves from threads of its own. Raises the soft limit on open files to what `connections` needs, as far
  // as the hard limit allows. Throws core::Error when the address can't be had.
  void start();
  int port() const;  // that it listens on; 0 before start()

  // From now on requests are told 503 and /health/ready too, while open answers go on. Returns at once.
  void begin_drain();
  // begin_drain(), then waits until no answer is open and all is written. False: `seconds` were over first.
  bool drain(double seconds);
  // Cuts what is open, cancelling its generations, and ends the threads.
  void stop();

  int64_t open_connections() const;
  int64_t open_answers() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace drydock::runtime
