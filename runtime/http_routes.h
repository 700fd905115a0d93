#pragma once
// From a parsed HTTP request to its response, or to the answer that will be one. Knows nothing of sockets.
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/answer.h"
#include "runtime/api_error.h"
#include "runtime/http_metrics.h"
#include "runtime/http_parser.h"
#include "runtime/http_server.h"
#include "runtime/request_log.h"

namespace drydock::runtime {

struct HttpResponse {
  int status = 200;
  std::string body, content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
};

// What all threads of a server share.
struct HttpShared {
  HttpShared(Service& the_service, const TextCodec& the_codec, HttpOptions the_options);

  Service& service;
  const TextCodec& codec;
  const HttpOptions options;
  RequestLog log;
  std::vector<std::unique_ptr<MetricsShard>> metrics;  // one a thread
  std::atomic<int64_t> connections{0}, answers{0}, body_bytes{0};
  std::atomic<bool> draining{false};
  int64_t created_s;  // when the server was made, since 1970
};

// A request on its way: who asks, and what for.
struct HttpExchange {
  HttpRequest request;
  std::string answer_id;   // of its answer and generations; unique
  std::string request_id;  // the client's own, else the answer's: for logs and headers
  std::string trace_parent;
  Clock::time_point begun;  // its last byte came
};

// Gives it its ids: those of the client where they are well-formed.
HttpExchange begin_exchange(HttpRequest request, core::Random& random);

// Whether what is asked for is a generation, which `prepare` reads; else `respond` has the response.
std::optional<CompletionKind> completion_kind(const HttpRequest& request);

// Method, key, type of the body. Throws ApiError.
void check_request(const HttpShared& shared, const HttpRequest& request);

// Reads and tokenizes the body; takes long where the prompt is long. Any thread may. Throws ApiError.
CompletionRequest prepare(const HttpShared& shared, const HttpExchange& exchange, CompletionKind kind, uint64_t seed);

// Hands it to the service; news goes to `mailbox`. Throws ApiError.
std::shared_ptr<Answer> submit(HttpShared& shared, const HttpExchange& exchange, CompletionRequest request,
                               std::shared_ptr<Mailbox> mailbox);

// Everything that is no generation. Throws ApiError.
HttpResponse respond(HttpShared& shared, const HttpExchange& exchange);

// `request`: that was refused, where there is one.
HttpResponse error_response(const HttpShared& shared, const ApiError& error, const HttpRequest* request = nullptr);

// Status line and headers. `length`: of the body; nullopt: it is streamed, chunked where `chunks`.
std::string response_head(const HttpResponse& response, const HttpExchange* exchange, std::optional<size_t> length,
                          bool chunks, bool keep_alive);

}  // namespace drydock::runtime
