// What is asked of a server before it is measured.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "runtime/bench_http.h"
#include "runtime/stream_chunk.h"

namespace drydock::runtime {
namespace {

constexpr size_t kMostBody = 1u << 20;
constexpr long kConnectMs = 10'000;

size_t keep_body(char* bytes, size_t, size_t count, void* body) {
  auto& text = *static_cast<std::string*>(body);
  if (text.size() + count > kMostBody) return 0;
  text.append(bytes, count);
  return count;
}

// Tokens the server counts in a chat of `units` units; below 1: it does not say.
int64_t count_chat(const BenchTarget& target, const RequestForm& form, TextUnit unit, int64_t units) {
  std::vector<Token> tokens;
  for (int64_t i = 0; i < units; ++i) tokens.push_back(static_cast<Token>(i * 7));
  const core::Json body = {{"model", form.model},
                           {"messages", {{{"role", "user"}, {"content", prompt_text(tokens, unit)}}}},
                           {"max_tokens", 1}};
  const HttpAnswer answer = ask_once(target, "/chat/completions", body.dump());
  const StreamChunk chunk = read_stream_chunk(answer.body);
  if (answer.status != 200)
    throw core::Error(fmt::format("{}: a first short chat was answered with {} {}", target.url, answer.status,
                                  chunk.error.substr(0, 120)));
  return chunk.prompt_tokens;
}

}  // namespace

void start_curl() {
  static std::once_flag once;
  std::call_once(once, [] { curl().global_init(CURL_GLOBAL_DEFAULT); });
}

std::string api_base(const std::string& url) {
  if (!url.starts_with("http://") && !url.starts_with("https://"))
    throw core::Error("--url '" + url.substr(0, 80) + "': want http://HOST:PORT or https://HOST");
  std::string out = url;
  while (out.ends_with('/')) out.pop_back();
  if (!out.ends_with("/v1")) out += "/v1";
  return out;
}

CurlList request_headers(const BenchTarget& target) {
  curl_slist* list = curl().slist_append(nullptr, "Content-Type: application/json");
  list = curl().slist_append(list, "Expect:");  // or long prompts would wait for leave to be sent
  if (!target.api_key.empty()) list = curl().slist_append(list, ("Authorization: Bearer " + target.api_key).c_str());
  return CurlList(list);
}

CurlEasy new_easy(const BenchTarget& target, const std::string& url, curl_slist* headers) {
  start_curl();
  CurlEasy out(curl().easy_init());
  if (!out) throw core::Error("libcurl: out of memory");
  CURL* easy = out.get();
  const char* spared = std::getenv("no_proxy");
  const std::string no_proxy = fmt::format("localhost,127.0.0.1,::1{}{}", spared ? "," : "", spared ? spared : "");
  curl().easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl().easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl().easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  curl().easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl().easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl().easy_setopt(easy, CURLOPT_NOPROXY, no_proxy.c_str());
  curl().easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, kConnectMs);
  curl().easy_setopt(easy, CURLOPT_TIMEOUT_MS, std::lround(target.timeout_s * 1e3));
  curl().easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
  curl().easy_setopt(easy, CURLOPT_USERAGENT, "drydock-bench");
  if (!target.verify_tls) {
    curl().easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    curl().easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  return out;
}

HttpAnswer ask_once(const BenchTarget& target, const std::string& page, const std::string& body) {
  const CurlList headers = request_headers(target);
  const CurlEasy easy = new_easy(target, api_base(target.url) + page, headers.get());
  HttpAnswer out;
  curl().easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, &keep_body);
  curl().easy_setopt(easy.get(), CURLOPT_WRITEDATA, &out.body);
  if (!body.empty()) {
    curl().easy_setopt(easy.get(), CURLOPT_POSTFIELDS, body.c_str());
    curl().easy_setopt(easy.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  }
  const CURLcode code = curl().easy_perform(easy.get());
  if (code != CURLE_OK)
    throw core::Error(
        fmt::format("--url {}: no answer ({}); is the server up?", target.url, curl().easy_strerror(code)));
  curl().easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &out.status);
  return out;
}

BenchServer ask_server(const BenchTarget& target) {
  BenchTarget brief = target;
  brief.timeout_s = std::min(target.timeout_s, 30.0);
  const HttpAnswer answer = ask_once(brief, "/models", "");
  if (answer.status == 401 || answer.status == 403)
    throw core::Error(
        fmt::format("--url {}: the server refuses the key ({}); --api-key-env names the variable that "
                    "holds one",
                    target.url, answer.status));
  BenchServer out;
  if (answer.status != 200) return out;
  try {
    const core::Json page = core::parse_json(answer.body, target.url + "/v1/models");
    for (const core::Json& model : core::Fields(page, target.url + "/v1/models").array("data"))
      out.models.push_back(core::Fields(model, target.url + "/v1/models").text("id"));
  } catch (const core::Error&) {
    out.models.clear();  // another idea of such a page: then --model must say it
  }
  return out;
}

void learn_text(const BenchTarget& target, RequestForm& form) {
  constexpr int64_t kFew = 40, kMany = 140;
  for (const TextUnit unit : {TextUnit::word, TextUnit::letter}) {
    const auto few = count_chat(target, form, unit, kFew), many = count_chat(target, form, unit, kMany);
    const double each = static_cast<double>(many - few) / static_cast<double>(kMany - kFew);
    if (few <= 0 || !(each > 0)) return;  // it does not say: a word is taken for a token
    // A word of several tokens: one letter may be one, as where bytes are tokens. Kept if it is nearer to one.
    if (unit == TextUnit::letter && std::abs(each - 1) >= std::abs(form.tokens_per_unit - 1)) return;
    form.unit = unit;
    form.tokens_per_unit = each;
    form.chat_overhead = std::llround(static_cast<double>(few) - each * kFew);
    if (each == 1) return;
  }
}

}  // namespace drydock::runtime
