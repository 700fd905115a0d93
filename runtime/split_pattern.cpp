#include "runtime/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>

#include "core/error.h"

namespace drydock::runtime {
namespace {

constexpr std::string_view kSpace =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr uint32_t kMostSteps = 50'000'000;
constexpr size_t kMostPatternBytes = 16 << 10;

std::string pcre_words(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// \s and \S spelled out. \S within a class is left to PCRE2: no known pattern has it.
std::string in_pcre_words(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's')
        out += in_class ? std::string(kSpace) : "[" + std::string(kSpace) + "]";
      else if (escaped == 'S' && !in_class)
        out += "[^" + std::string(kSpace) + "]";
      else
        (out += c) += escaped;
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

template <auto kFree>
struct PcreFree {
  void operator()(auto* object) const { kFree(object); }
};

}  // namespace

struct SplitPattern::Compiled {
  std::string origin;
  std::unique_ptr<pcre2_code, PcreFree<pcre2_code_free>> code;
  std::unique_ptr<pcre2_match_context, PcreFree<pcre2_match_context_free>> context;
};

SplitPattern::SplitPattern(std::string_view pattern, std::string_view origin) {
  if (pattern.empty() || pattern.size() > kMostPatternBytes)
    throw core::Error(std::string(origin) + ": pre_tokenizer: a pattern of 1 to 16384 bytes is right");
  const std::string words = in_pcre_words(pattern);
  auto compiled = std::make_shared<Compiled>();
  int error = 0;
  size_t offset = 0;
  compiled->origin = origin;
  compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(words.data()), words.size(),
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
  if (compiled->code == nullptr)
    throw core::Error(std::string(origin) + ": pre_tokenizer: pattern '" + std::string(pattern.substr(0, 80)) +
                      "': " + pcre_words(error));
  pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);  // without it the pattern is interpreted: slower only
  compiled->context.reset(pcre2_match_context_create(nullptr));
  if (compiled->context == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(compiled->context.get(), kMostSteps);
  compiled_ = std::move(compiled);
}

void SplitPattern::split(std::string_view text, const std::function<void(std::string_view)>& use) const {
  const std::unique_ptr<pcre2_match_data, PcreFree<pcre2_match_data_free>> match(
      pcre2_match_data_create_from_pattern(compiled_->code.get(), nullptr));
  if (match == nullptr) throw std::bad_alloc();
  size_t done = 0, from = 0;
  while (from < text.size()) {
    const int found = pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                  PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, match.get(), compiled_->context.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) throw core::Error(compiled_->origin + ": pre_tokenizer: on this text: " + pcre_words(found));
    const size_t *ends = pcre2_get_ovector_pointer(match.get()), begin = ends[0], end = ends[1];
    if (begin < from || end <= begin) break;  // \K can move them
    if (begin > done) use(text.substr(done, begin - done));
    use(text.substr(begin, end - begin));
    done = from = end;
  }
  if (done < text.size()) use(text.substr(done));
}

}  // namespace drydock::runtime
