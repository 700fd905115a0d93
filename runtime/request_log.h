#pragma once
// Lines on stderr, one a request, as JSON or for people. Nothing of prompts or answers is ever in them.
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace drydock::runtime {

enum class LogLevel : uint8_t { debug, info, warning, error, off };

struct LogOptions {
  LogLevel level = LogLevel::info;
  bool json = true;  // else text
};

// Throws core::Error naming what can be given: "debug", "info", "warning", "error", "off".
LogLevel parse_log_level(std::string_view text);

using LogValue = std::variant<std::string_view, int64_t, double, bool>;
using LogField = std::pair<std::string_view, LogValue>;

// Lines are written by a thread of its own: when stderr is not read, the oldest are dropped and nobody waits. Safe to
// call from many threads.
class RequestLog {
 public:
  explicit RequestLog(LogOptions options);
  ~RequestLog();  // what was logged is written
  RequestLog(const RequestLog&) = delete;
  RequestLog& operator=(const RequestLog&) = delete;

  bool enabled(LogLevel level) const { return level >= options_.level && level != LogLevel::off; }
  // `event`: "request", "start", ...
  void write(LogLevel level, std::string_view event, std::initializer_list<LogField> fields);

 private:
  struct Sink;
  LogOptions options_;
  std::unique_ptr<Sink> sink_;
};

}  // namespace drydock::runtime
