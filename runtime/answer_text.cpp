#include "runtime/answer_text.h"

#include <algorithm>

namespace drydock::runtime {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes of a character by its first one, and the range of its second: table 3-7 of the Unicode Standard. 0: no start.
struct CharacterShape {
  int bytes = 0;
  unsigned char second_least = 0x80, second_most = 0xBF;
};

CharacterShape shape_of(unsigned char first) {
  if (first < 0x80) return {1};
  if (first >= 0xC2 && first <= 0xDF) return {2};
  if (first == 0xE0) return {3, 0xA0};
  if (first == 0xED) return {3, 0x80, 0x9F};
  if (first >= 0xE1 && first <= 0xEF) return {3};
  if (first == 0xF0) return {4, 0x90};
  if (first >= 0xF1 && first <= 0xF3) return {4};
  if (first == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

// Whether `c` can be byte `index` (> 0) of a character that starts with `first`.
bool continues(unsigned char first, size_t index, unsigned char c) {
  const CharacterShape shape = shape_of(first);
  return index == 1 ? c >= shape.second_least && c <= shape.second_most : c >= 0x80 && c <= 0xBF;
}

}  // namespace

void Utf8Assembler::push(std::string_view bytes, std::string& out) {
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (!held_.empty()) {
      const auto first = static_cast<unsigned char>(held_.front());
      if (continues(first, held_.size(), byte)) {
        held_ += c;
        if (held_.size() == static_cast<size_t>(shape_of(first).bytes)) {
          out += held_;
          held_.clear();
        }
        continue;
      }
      finish(out);
    }
    const int length = shape_of(byte).bytes;
    if (length == 1)
      out += c;
    else if (length == 0)
      out += kReplacement;
    else
      held_ = c;
  }
}

void Utf8Assembler::finish(std::string& out) {
  if (!held_.empty()) out += kReplacement;
  held_.clear();
}

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    if (stop.empty()) continue;
    Pattern& pattern = patterns_.emplace_back();
    pattern.text = stop;
    pattern.border.assign(stop.size() + 1, 0);
    for (size_t i = 1, length = 0; i < stop.size(); ++i) {
      while (length > 0 && stop[i] != stop[length]) length = pattern.border[length];
      if (stop[i] == stop[length]) ++length;
      pattern.border[i + 1] = static_cast<uint32_t>(length);
    }
  }
}

void StopMatcher::Pattern::step(char c) {
  while (matched > 0 && text[matched] != c) matched = border[matched];
  if (text[matched] == c) ++matched;
}

bool StopMatcher::push(std::string_view text, std::string& out) {
  if (patterns_.empty()) {
    out += text;
    return false;
  }
  for (const char c : text) {
    held_ += c;
    size_t longest = 0, found = 0;
    for (Pattern& pattern : patterns_) {
      pattern.step(c);
      longest = std::max(longest, pattern.matched);
      if (pattern.matched == pattern.text.size()) found = std::max(found, pattern.matched);
    }
    const size_t safe = held_.size() - (found > 0 ? found : longest);
    out.append(held_, 0, safe);
    held_.erase(0, safe);
    if (found > 0) {
      held_.clear();
      return true;
    }
  }
  return false;
}

void StopMatcher::finish(std::string& out) {
  out += held_;
  held_.clear();
}

bool AnswerText::push(std::string_view bytes, std::string& out) {
  whole_.clear();
  utf8_.push(bytes, whole_);
  characters_ += count_characters(whole_);
  const size_t before = out.size();
  const bool stopped = stops_.push(whole_, out);
  shown_ += count_characters(std::string_view(out).substr(before));
  return stopped;
}

void AnswerText::finish(std::string& out) {
  whole_.clear();
  utf8_.finish(whole_);
  characters_ += count_characters(whole_);
  const size_t before = out.size();
  // The last character may complete a stop string; then the text ends before it all the same.
  if (!stops_.push(whole_, out)) stops_.finish(out);
  shown_ += count_characters(std::string_view(out).substr(before));
}

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

}  // namespace drydock::runtime
