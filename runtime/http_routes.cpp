#include "runtime/http_routes.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>

#include "core/json.h"
#include "runtime/api_keys.h"
#include "runtime/trace_context.h"

namespace drydock::runtime {
namespace {

using core::Json;

enum class Route : uint8_t {
  none,
  completions,
  chat,
  tokenize,
  detokenize,
  models,
  model,
  live,
  ready,
  metrics,
  version
};

constexpr std::string_view kModelPrefix = "/v1/models/";

Route route_of(std::string_view path) {
  static constexpr std::pair<std::string_view, Route> kRoutes[] = {{"/v1/completions", Route::completions},
                                                                   {"/v1/chat/completions", Route::chat},
                                                                   {"/tokenize", Route::tokenize},
                                                                   {"/detokenize", Route::detokenize},
                                                                   {"/v1/models", Route::models},
                                                                   {"/health/live", Route::live},
                                                                   {"/health/ready", Route::ready},
                                                                   {"/health", Route::ready},
                                                                   {"/metrics", Route::metrics},
                                                                   {"/version", Route::version}};
  for (const auto& [known, route] : kRoutes)
    if (path == known) return route;
  return path.starts_with(kModelPrefix) ? Route::model : Route::none;
}

bool takes_body(Route route) {
  return route == Route::completions || route == Route::chat || route == Route::tokenize || route == Route::detokenize;
}

bool needs_key(Route route) { return takes_body(route) || route == Route::models || route == Route::model; }

bool is_json_type(std::string_view type) {
  constexpr std::string_view kJson = "application/json";
  if (type.size() < kJson.size()) return false;
  for (size_t i = 0; i < kJson.size(); ++i)
    if (std::tolower(static_cast<unsigned char>(type[i])) != kJson[i]) return false;
  const size_t rest = type.find_first_not_of(" \t", kJson.size());
  return rest == std::string_view::npos || type[rest] == ';';
}

std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const int lower = c | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool coded = text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
    out += coded ? static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2])) : text[i];
    if (coded) i += 2;
  }
  return out;
}

Json model_json(const HttpShared& shared, const std::string& name) {
  return {{"id", name},
          {"object", "model"},
          {"created", shared.created_s},
          {"owned_by", "drydock"},
          {"max_model_len", shared.service.longest_sequence()}};
}

HttpResponse json_response(const Json& body, int status = 200) {
  return {status, body.dump(-1, ' ', false, Json::error_handler_t::replace), "application/json", {}};
}

HttpResponse models_response(const HttpShared& shared) {
  Json list = Json::array();
  for (const std::string& name : shared.options.models) list.push_back(model_json(shared, name));
  return json_response({{"object", "list"}, {"data", std::move(list)}});
}

HttpResponse model_response(const HttpShared& shared, std::string_view path) {
  const std::string name = percent_decoded(path.substr(kModelPrefix.size()));
  const auto& models = shared.options.models;
  if (std::find(models.begin(), models.end(), name) == models.end())
    throw ApiError(404, "model '" + name.substr(0, 200) + "' is not served here", "model", "model_not_found");
  return json_response(model_json(shared, name));
}

HttpResponse ready_response(const HttpShared& shared) {
  if (shared.draining) return json_response({{"status", "draining"}}, 503);
  if (!shared.service.ready()) return json_response({{"status", "not ready"}}, 503);
  return json_response({{"status", "ready"}});
}

HttpResponse metrics_response(const HttpShared& shared) {
  const HttpGauges gauges{shared.connections, shared.answers, shared.options.version};
  return {200,
          metrics_text(shared.metrics, shared.service.stats(), gauges, shared.options.models.front()),
          "text/plain; version=0.0.4; charset=utf-8",
          {}};
}

CompletionRules rules_of(const HttpShared& shared) {
  return {shared.codec, shared.options.models, shared.service.longest_sequence(), shared.options.limits.choices};
}

bool good_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == ':';
  });
}

std::optional<double> header_timeout(const std::string& text) {
  if (text.empty()) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0) || value > 7 * 86400.0)
    throw ApiError(400, "header X-Request-Timeout-S: want seconds, more than 0 and at most 604800",
                   "x-request-timeout-s");
  return value;
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[40];
  return {text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts)};
}

}  // namespace

HttpShared::HttpShared(Service& the_service, const TextCodec& the_codec, HttpOptions the_options)
    : service(the_service),
      codec(the_codec),
      options(std::move(the_options)),
      log(options.log),
      created_s(static_cast<int64_t>(std::time(nullptr))) {
  for (int i = 0; i < options.threads; ++i) metrics.push_back(std::make_unique<MetricsShard>());
}

HttpExchange begin_exchange(HttpRequest request, core::Random& random) {
  HttpExchange out;
  out.begun = Clock::now();
  const auto kind = completion_kind(request);
  out.answer_id = new_id(!kind ? "req-" : *kind == CompletionKind::chat ? "chatcmpl-" : "cmpl-", random);
  out.request_id = good_request_id(request.request_id) ? request.request_id : out.answer_id;
  out.trace_parent = valid_trace_parent(request.trace_parent) ? request.trace_parent : new_trace_parent(random);
  out.request = std::move(request);
  return out;
}

std::optional<CompletionKind> completion_kind(const HttpRequest& request) {
  if (request.method != "POST") return std::nullopt;
  const Route route = route_of(request.path);
  if (route == Route::completions) return CompletionKind::text;
  if (route == Route::chat) return CompletionKind::chat;
  return std::nullopt;
}

void check_request(const HttpShared& shared, const HttpRequest& request) {
  const Route route = route_of(request.path);
  if (needs_key(route) && !shared.options.api_keys.empty() &&
      !bearer_allowed(request.authorization, shared.options.api_keys))
    throw ApiError(401, "want a valid key: Authorization: Bearer KEY", "", "invalid_api_key");
  if (route == Route::none)
    throw ApiError(404, "nothing is at " + request.path.substr(0, 200) + "; docs/http.md lists what there is");
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (takes_body(route) ? request.method != "POST" : !reads)
    throw ApiError(405, "want " + std::string(takes_body(route) ? "POST" : "GET") + " " + request.path.substr(0, 200));
  if (!takes_body(route)) return;
  if (!request.content_encoding.empty() && request.content_encoding != "identity")
    throw ApiError(415, "a body with a Content-Encoding is not supported");
  // Also keeps web pages of other origins from asking without a preflight request, which is not granted.
  if (!is_json_type(request.content_type)) throw ApiError(415, "want Content-Type: application/json");
}

CompletionRequest prepare(const HttpShared& shared, const HttpExchange& exchange, CompletionKind kind, uint64_t seed) {
  if (shared.draining) throw ApiError(503, "the server is shutting down", "", "draining");
  core::Random random(seed);
  const std::optional<double> from_header = header_timeout(exchange.request.timeout);
  CompletionRequest out = parse_completion(kind, exchange.request.body, rules_of(shared), random);
  const double limit = shared.options.limits.generation_s;
  for (const std::optional<double> more : {from_header, limit > 0 ? std::optional(limit) : std::nullopt})
    if (more) out.timeout_s = std::min(out.timeout_s.value_or(*more), *more);
  return out;
}

std::shared_ptr<Answer> submit(HttpShared& shared, const HttpExchange& exchange, CompletionRequest request,
                               std::shared_ptr<Mailbox> mailbox) {
  std::vector<Generation> generations = std::move(request.generations);
  for (size_t i = 0; i < generations.size(); ++i) {
    generations[i].id = exchange.answer_id + (i == 0 ? "" : "-" + std::to_string(i));
    generations[i].trace_parent = exchange.trace_parent;
    if (request.timeout_s)
      generations[i].deadline = exchange.begun + std::chrono::duration_cast<Clock::duration>(
                                                     std::chrono::duration<double>(*request.timeout_s));
  }
  const auto answer = std::make_shared<Answer>(std::move(request), generations.size(), exchange.answer_id,
                                               static_cast<int64_t>(std::time(nullptr)), exchange.begun, shared.service,
                                               shared.codec, std::move(mailbox));
  answer->submit(std::move(generations));
  return answer;
}

HttpResponse respond(HttpShared& shared, const HttpExchange& exchange) {
  switch (route_of(exchange.request.path)) {
    case Route::models:
      return models_response(shared);
    case Route::model:
      return model_response(shared, exchange.request.path);
    case Route::live:
      return json_response({{"status", "live"}});
    case Route::ready:
      return ready_response(shared);
    case Route::metrics:
      return metrics_response(shared);
    case Route::version:
      return json_response({{"version", shared.options.version}});
    case Route::tokenize:
      return {200, tokenize(exchange.request.body, rules_of(shared)), "application/json", {}};
    case Route::detokenize:
      return {200, detokenize(exchange.request.body, rules_of(shared)), "application/json", {}};
    default:
      throw ApiError(404, "nothing is here");
  }
}

HttpResponse error_response(const HttpShared& shared, const ApiError& error, const HttpRequest* request) {
  HttpResponse out{error.status(), error.json(), "application/json", {}};
  if (error.status() == 401) out.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.status() == 405 && request)
    out.headers.emplace_back("Allow", takes_body(route_of(request->path)) ? "POST" : "GET, HEAD");
  if (error.status() == 429 || error.status() == 503) {
    const double seconds = std::clamp(shared.service.retry_after_s(), 1.0, 3600.0);
    out.headers.emplace_back("Retry-After", std::to_string(static_cast<int>(std::ceil(seconds))));
  }
  return out;
}

std::string response_head(const HttpResponse& response, const HttpExchange* exchange, std::optional<size_t> length,
                          bool chunks, bool keep_alive) {
  std::string out = "HTTP/1.1 " + std::to_string(response.status) + " ";
  out += status_text(response.status);
  const auto add = [&out](std::string_view name, std::string_view value) {
    out.append("\r\n").append(name).append(": ").append(value);
  };
  add("Date", http_date());
  add("Content-Type", response.content_type);
  add("X-Content-Type-Options", "nosniff");
  if (length) add("Content-Length", std::to_string(*length));
  if (!length) add("Cache-Control", "no-cache");
  if (!length) add("X-Accel-Buffering", "no");  // or nginx keeps events until it has a page of them
  if (!length && chunks) add("Transfer-Encoding", "chunked");
  if (exchange) add("X-Request-Id", exchange->request_id);
  if (exchange) add("traceparent", exchange->trace_parent);
  for (const auto& [name, value] : response.headers) add(name, value);
  add("Connection", keep_alive ? "keep-alive" : "close");
  return out + "\r\n\r\n";
}

}  // namespace drydock::runtime
