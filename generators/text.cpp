#include "generators/text.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "core/text.h"

namespace drydock::generators {
namespace {

using core::Json;

// YAML 1.1 takes these for truth values, and digits or signs may begin a number.
bool is_plain_key(const std::string& key) {
  constexpr std::array<std::string_view, 12> kWords = {"y",    "n",     "yes",  "no", "on", "off",
                                                       "true", "false", "null", "",   "~",  "="};
  if (std::find(kWords.begin(), kWords.end(), core::lower_case(key)) != kWords.end()) return false;
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto fine = [&](char c) { return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '/'; };
  return letter(key.front()) && std::all_of(key.begin(), key.end(), fine);
}

// YAML 1.1 wants a point in a number with an exponent.
std::string number_text(const Json& value) {
  std::string text = value.dump();
  const size_t exponent = text.find('e');
  if (value.is_number_float() && exponent != std::string::npos && text.find('.') == std::string::npos)
    text.insert(exponent, ".0");
  return text;
}

// YAML 1.1 readers, Kubernetes' among them, take some plain words for other types: quoting every string is safe.
void emit_yaml(YAML::Emitter& out, const Json& value) {
  if (value.is_object()) {
    if (value.empty()) out << YAML::Flow;
    out << YAML::BeginMap;
    for (const auto& [key, inner] : value.items()) {
      out << YAML::Key;
      if (!is_plain_key(key)) out << YAML::DoubleQuoted;
      out << key << YAML::Value;
      emit_yaml(out, inner);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    if (value.empty()) out << YAML::Flow;
    out << YAML::BeginSeq;
    for (const Json& inner : value) emit_yaml(out, inner);
    out << YAML::EndSeq;
  } else if (value.is_string()) {
    out << YAML::DoubleQuoted << value.get_ref<const std::string&>();
  } else if (value.is_null()) {
    out << YAML::Null;
  } else {
    out << number_text(value);  // true and false are written alike
  }
}

bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("_-./:=,@%+").find(c) != std::string_view::npos;
}

}  // namespace

std::string json_text(const Json& value) { return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string yaml(const Json& value) {
  YAML::Emitter out;
  out.SetOutputCharset(YAML::EscapeNonAscii);
  emit_yaml(out, value);
  assert(out.good());
  return std::string(out.c_str()) + "\n";
}

std::string yaml(const std::vector<Json>& documents) {
  std::string out;
  for (const Json& document : documents) out += (out.empty() ? "" : "---\n") + yaml(document);
  return out;
}

std::string safe_name(std::string_view text, size_t most) {
  std::string out;
  bool changed = text.empty() || text.size() > most;
  for (const char c : text) {
    const char low = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const bool fine = (low >= 'a' && low <= 'z') || (low >= '0' && low <= '9') || (low == '-' && !out.empty());
    changed = changed || !fine;
    if (fine || (!out.empty() && out.back() != '-')) out += fine ? low : '-';
  }
  constexpr int kHashDigits = 8;
  while (!out.empty() && out.back() == '-') {
    out.pop_back();
    changed = true;
  }
  if (!changed) return out;
  const size_t room = most > kHashDigits ? most - kHashDigits - 1 : 0;
  if (out.size() > room) out.resize(room);
  while (!out.empty() && out.back() == '-') out.pop_back();
  return (out.empty() ? std::string("x") : out + "-").substr(0, most - kHashDigits) + hex(fnv1a(text), kHashDigits);
}

std::string shell_word(std::string_view text) {
  bool plain = !text.empty();
  for (const char c : text) plain = plain && is_word_char(c);
  if (plain) return std::string(text);
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else if (c != '\0')
      out += c;  // no shell can hold a NUL
  }
  return out + "'";
}

std::string comment_text(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c < 32 || c > 126) c = '?';
  return out;
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;  // offset basis and prime of FNV-1a, 64 bits
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

std::string hex(uint64_t value, int digits) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (int i = digits; i-- > 0;) out += kDigits[value >> (4 * i) & 15];
  return out;
}

}  // namespace drydock::generators
