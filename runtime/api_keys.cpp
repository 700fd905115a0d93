#include "runtime/api_keys.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"

namespace drydock::runtime {
namespace {

constexpr size_t kShortestKey = 16, kLongestKey = 512;

std::string_view trimmed_key(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::vector<std::string> keys_between(std::string_view text, char separator, const std::string& where) {
  std::vector<std::string> keys;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    const std::string_view key = trimmed_key(text.substr(at, end - at));
    at = end + 1;
    if (key.empty() || (separator == '\n' && key.front() == '#')) continue;
    // The key itself is not shown: errors end up in logs.
    if (key.size() < kShortestKey || key.size() > kLongestKey ||
        !std::all_of(key.begin(), key.end(), [](unsigned char c) { return c > 32 && c < 127; }))
      throw core::Error(where + ": key " + std::to_string(keys.size() + 1) +
                        " is not 16 to 512 visible ASCII characters");
    keys.emplace_back(key);
  }
  if (keys.empty()) throw core::Error(where + ": no key in it; want at least one of 16 characters or more");
  return keys;
}

bool same_key(std::string_view given, std::string_view key) {
  // The whole of `given` is walked whatever matches, and through a volatile, so that no compiler ends the loop early.
  volatile unsigned char differs = given.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i)
    differs = static_cast<unsigned char>(differs | (given[i] ^ key[i % key.size()]));
  return differs == 0;
}

}  // namespace

std::vector<std::string> read_api_keys(const std::filesystem::path& file) {
  return keys_between(core::read_file(file, 1 << 20), '\n', file.string());
}

std::vector<std::string> split_api_keys(std::string_view text, std::string_view name) {
  return keys_between(text, ',', std::string(name));
}

bool bearer_allowed(std::string_view header, const std::vector<std::string>& keys) {
  constexpr std::string_view kScheme = "bearer ";
  if (header.size() <= kScheme.size()) return false;
  for (size_t i = 0; i < kScheme.size(); ++i)
    if ((header[i] | 0x20) != (kScheme[i] | 0x20)) return false;
  const std::string_view given = trimmed_key(header.substr(kScheme.size()));
  bool allowed = false;
  for (const std::string& key : keys) allowed |= same_key(given, key);
  return allowed;
}

}  // namespace drydock::runtime
