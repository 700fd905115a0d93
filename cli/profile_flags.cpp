#include "cli/profile_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "cli/command.h"
#include "core/error.h"

namespace drydock::cli {

std::vector<std::string> profile_words(const std::string& list, const char* flag) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    out.push_back(list.substr(at, end - at));
    if (out.back().empty()) throw core::Error(std::string(flag) + " '" + list.substr(0, 60) + "': want a,b,c");
    at = end + 1;
  }
  return out;
}

std::vector<int> profile_sizes(const std::string& list, const char* flag) {
  constexpr int64_t kMostRanks = 1024;
  std::vector<int> out;
  for (const std::string& word : profile_words(list, flag))
    out.push_back(static_cast<int>(parse_count(word, flag, kMostRanks)));
  return out;
}

// "90", "90s", "3m", "1.5h"
double profile_seconds(const std::string& text, const char* flag) {
  constexpr double kMost = 30 * 86400;
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const double factor = unit.empty() || unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : 0;
  if (status != std::errc{} || factor == 0 || !(value * factor >= 1 && value * factor <= kMost))
    throw core::Error(std::string(flag) + " '" + text.substr(0, 60) +
                      "': want a time from 1s to 720h such as 90s or 3m");
  return value * factor;
}

// "5%" or "0.05"
double profile_share(const std::string& text, const char* flag, double most) {
  const bool is_percent = text.ends_with('%');
  double value = 0;
  const char* const last = text.data() + text.size() - (is_percent ? 1 : 0);
  const auto [end, status] = std::from_chars(text.data(), last, value);
  if (is_percent) value /= 100;
  if (status != std::errc{} || end != last || !(value >= 1e-4 && value <= most))
    throw core::Error(std::string(flag) + " '" + text.substr(0, 60) + "': want a share from 0.01% to " +
                      fmt::format("{:.0f}%", most * 100) + " such as 5%");
  return value;
}

profiler::Silicon::Fault profile_fault(const std::string& text) {
  using profiler::Failure;
  const size_t equals = text.rfind('=');
  const std::string what = equals == std::string::npos ? "" : text.substr(equals + 1);
  for (const auto& [name, failure] :
       {std::pair{"oom", Failure::out_of_memory}, std::pair{"error", Failure::error},
        std::pair{"crash", Failure::crash}, std::pair{"hang", Failure::hang}, std::pair{"lost", Failure::lost}})
    if (what == name) return {text.substr(0, equals), failure};
  throw core::Error("--fault '" + text.substr(0, 60) + "': want PART-OF-AN-OP=oom, error, crash, hang or lost");
}

}  // namespace drydock::cli
