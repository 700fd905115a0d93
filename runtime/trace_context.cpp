#include "runtime/trace_context.h"

#include <algorithm>
#include <cstdint>

namespace drydock::runtime {
namespace {

bool lower_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool all_zeros(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

std::string random_hex(core::Random& random) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (uint64_t bits = random.next() | 1; out.size() < 16; bits >>= 4) out += kDigits[bits & 15];
  return out;
}

}  // namespace

bool valid_trace_parent(std::string_view text) {
  constexpr size_t kLength = 55;
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  const std::string_view version = text.substr(0, 2);
  if (!lower_hex(version) || version == "ff") return false;
  if (text.size() > kLength && (version == "00" || text[kLength] != '-' || text.size() > 512)) return false;
  // What follows in later versions is passed on as it came: visible ASCII only.
  if (!std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > 32 && c < 127; })) return false;
  const std::string_view trace = text.substr(3, 32), parent = text.substr(36, 16), flags = text.substr(53, 2);
  return lower_hex(trace) && lower_hex(parent) && lower_hex(flags) && !all_zeros(trace) && !all_zeros(parent);
}

std::string new_trace_parent(core::Random& random) {
  return "00-" + random_hex(random) + random_hex(random) + "-" + random_hex(random) + "-00";
}

std::string_view trace_id(std::string_view trace_parent) { return trace_parent.substr(3, 32); }

std::string new_id(std::string_view prefix, core::Random& random) {
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::string out(prefix);
  for (int i = 0; i < 24; ++i) out += kDigits[static_cast<size_t>(random.integer(0, 35))];
  return out;
}

}  // namespace drydock::runtime
