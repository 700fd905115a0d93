#include "runtime/bench_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/text.h"
#include "runtime/stream_chunk.h"

namespace drydock::runtime {
namespace {

constexpr size_t kMostRefusalBytes = 4096;  // of an error's body that are read

}  // namespace

Exchange::Exchange(BenchHub& hub, CurlEasy handle) : easy(std::move(handle)), hub_(hub) {
  curl().easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, &on_body);
  curl().easy_setopt(easy.get(), CURLOPT_HEADERFUNCTION, &on_header);
  curl().easy_setopt(easy.get(), CURLOPT_WRITEDATA, this);
  curl().easy_setopt(easy.get(), CURLOPT_HEADERDATA, this);
  curl().easy_setopt(easy.get(), CURLOPT_PRIVATE, this);
}

void Exchange::begin() {
  reader_.reset();
  error_.clear(), refusal_.clear();
  finished_ = false;
  chunks = 0;
  prompt_tokens = completion_tokens = cached_tokens = -1;
  status = 0, retry_after_s = -1;
  record.first_us = record.last_us = -1;
}

size_t Exchange::on_header(char* bytes, size_t, size_t count, void* self) {
  auto& x = *static_cast<Exchange*>(self);
  const std::string line = core::lower_case(std::string(bytes, count));
  if (line.starts_with("http/")) {  // a new answer begins, after a proxy's or a 100
    x.status = 0;
    const size_t space = line.find(' ');
    if (space != std::string::npos) std::from_chars(line.data() + space + 1, line.data() + line.size(), x.status);
  }
  constexpr std::string_view kRetryAfter = "retry-after:";
  if (!line.starts_with(kRetryAfter)) return count;
  const size_t digit = line.find_first_of("0123456789", kRetryAfter.size());  // seconds; dates are for browsers
  double seconds = 0;
  if (digit != std::string::npos &&
      std::from_chars(line.data() + digit, line.data() + line.size(), seconds).ec == std::errc{} &&
      std::isfinite(seconds))
    x.retry_after_s = seconds;
  return count;
}

size_t Exchange::on_body(char* bytes, size_t, size_t count, void* self) {
  return static_cast<Exchange*>(self)->take({bytes, count});
}

size_t Exchange::take(std::string_view bytes) {
  hub_.bytes += static_cast<int64_t>(bytes.size());
  if (status != 200) {
    refusal_.append(bytes.substr(0, kMostRefusalBytes - std::min(kMostRefusalBytes, refusal_.size())));
    return bytes.size();
  }
  try {
    reader_.feed(bytes, [&](std::string_view data) {
      if (error_.empty()) event(data);
    });
  } catch (const core::Error& error) {
    error_ = error.what();
  }
  return error_.empty() ? bytes.size() : 0;  // 0: libcurl drops the connection
}

void Exchange::event(std::string_view data) {
  if (data == "[DONE]") {
    finished_ = true;
    return;
  }
  StreamChunk chunk = read_stream_chunk(data);
  if (!chunk.is_json) chunk.error = "malformed event";
  if (!chunk.error.empty()) {
    error_ = std::move(chunk.error);
    return;
  }
  finished_ |= chunk.finished;
  if (chunk.prompt_tokens >= 0) prompt_tokens = chunk.prompt_tokens;
  if (chunk.completion_tokens >= 0) completion_tokens = chunk.completion_tokens;
  if (chunk.cached_tokens >= 0) cached_tokens = chunk.cached_tokens;
  if (!chunk.output && !chunk.silent) return;
  if (chunks++ == 0)
    record.first_us = hub_.now_us;
  else if (!record.warmup)
    hub_.observer.token_gap(hub_.now_us - record.last_us, 1);
  record.last_us = hub_.now_us;
  ++hub_.chunks;
  hub_.output_tokens += 1;
}

std::string Exchange::failure(CURLcode code) const {
  if (!error_.empty()) return error_;
  if (code == CURLE_OPERATION_TIMEDOUT) return "timed out";
  if (status != 200 && status != 0) {
    const StreamChunk said = read_stream_chunk(refusal_);
    return fmt::format("HTTP {}{}{}", status, said.error.empty() ? "" : ": ", said.error.substr(0, 120));
  }
  if (chunks > 0 && (finished_ || (code == CURLE_OK && chunks >= asked_tokens))) return "";
  if (code == CURLE_COULDNT_CONNECT) return "connection refused";
  if (code != CURLE_OK) return fmt::format("{}{}", chunks > 0 ? "stream broke: " : "", curl().easy_strerror(code));
  return chunks > 0 ? "stream ended early" : "an answer without tokens";
}

}  // namespace drydock::runtime
