#pragma once
// The regular expression by which a tokenizer cuts text into words, by PCRE2.
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace drydock::runtime {

// Immutable; safe to use from many threads.
class SplitPattern {
 public:
  // `pattern` as tokenizer.json has it, in Oniguruma's words. Means what it means there: \s is Unicode's White_Space,
  // which PCRE2's is but for U+180E. Throws core::Error, with PCRE2's words, on a pattern that it does not know.
  SplitPattern(std::string_view pattern, std::string_view origin);

  // Calls use(piece) for matches and what lies between them, in order; `text` is valid UTF-8. Throws core::Error when
  // the pattern takes too many steps on it.
  void split(std::string_view text, const std::function<void(std::string_view)>& use) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace drydock::runtime
