#include "runtime/request_log.h"

#include <spdlog/async_logger.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <chrono>
#include <cmath>
#include <ctime>

#include "core/error.h"
#include "core/json.h"

namespace drydock::runtime {
namespace {

constexpr const char* kLevelNames[] = {"debug", "info", "warning", "error", "off"};
constexpr size_t kQueue = 8192;  // lines

// "2026-01-31T12:00:00.123Z"
std::string utc_now() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[40];
  const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + length, sizeof text - length, ".%03dZ", static_cast<int>(milliseconds));
  return text;
}

core::Json value_json(const LogValue& value) {
  return std::visit([](const auto& one) { return core::Json(one); }, value);
}

// JSON's strings serve people as well: a value with a line end can't forge a line.
std::string line_of(bool json, LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  const auto dumped = [](const core::Json& one) {
    return one.dump(-1, ' ', true, core::Json::error_handler_t::replace);
  };
  const char* name = kLevelNames[static_cast<size_t>(level)];
  if (json) {
    core::Json out = {{"time", utc_now()}, {"level", name}, {"event", event}};
    for (const auto& [field, value] : fields) out[std::string(field)] = value_json(value);
    return dumped(out);
  }
  std::string out = utc_now() + " " + name + " " + std::string(event);
  for (const auto& [field, value] : fields) out += " " + std::string(field) + "=" + dumped(value_json(value));
  return out;
}

}  // namespace

LogLevel parse_log_level(std::string_view text) {
  for (size_t i = 0; i < std::size(kLevelNames); ++i)
    if (text == kLevelNames[i]) return static_cast<LogLevel>(i);
  throw core::Error("log level '" + std::string(text.substr(0, 40)) +
                    "' is not known; want debug, info, warning, error or off");
}

struct RequestLog::Sink {
  // What waits is written and the thread has ended before what it writes with goes.
  ~Sink() { pool.reset(); }

  std::shared_ptr<spdlog::details::thread_pool> pool = std::make_shared<spdlog::details::thread_pool>(kQueue, 1);
  std::shared_ptr<spdlog::async_logger> logger =
      std::make_shared<spdlog::async_logger>("drydock", std::make_shared<spdlog::sinks::stderr_sink_mt>(), pool,
                                             spdlog::async_overflow_policy::overrun_oldest);
};

RequestLog::RequestLog(LogOptions options) : options_(options) {
  if (options.level == LogLevel::off) return;
  sink_ = std::make_unique<Sink>();
  sink_->logger->set_level(spdlog::level::trace);
  sink_->logger->set_pattern("%v");
}

RequestLog::~RequestLog() = default;

void RequestLog::write(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  if (sink_ && enabled(level)) sink_->logger->log(spdlog::level::info, line_of(options_.json, level, event, fields));
}

}  // namespace drydock::runtime
