#pragma once
// Byte-pair encoding of words: neighbouring parts are merged, the pair learned earliest first, until no pair is left.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/generation.h"

namespace drydock::runtime {

// Immutable; safe to use from many threads.
class Bpe {
 public:
  struct Merge {
    Token left = 0, right = 0, merged = 0;
  };
  // `tokens`: bytes and id of every token that words are made of, all 256 single bytes among them (throws core::Error);
  // `merges` in the order they were learned. `whole_words`: a word that is a token is that token, whatever the merges.
  Bpe(const std::vector<std::pair<std::string, Token>>& tokens, const std::vector<Merge>& merges, bool whole_words,
      std::string_view origin);

  // Appends the word's tokens. Time n log n in its bytes.
  void encode(std::string_view word, std::vector<Token>& out) const;

 private:
  struct Rule {
    uint64_t pair = kNoPair;
    uint32_t rank = 0;
    Token merged = 0;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  static uint64_t pair_of(Token left, Token right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32U | static_cast<uint32_t>(right);
  }
  const Rule* rule(Token left, Token right) const;
  void add_rule(const Merge& merge, uint32_t rank);
  void merge_short(std::string_view word, std::vector<Token>& out) const;
  void merge_long(std::string_view word, std::vector<Token>& out) const;
  void merge(std::string_view word, std::vector<Token>& out) const;

  std::array<Token, 256> bytes_{};
  std::vector<Rule> rules_;                                              // open addressing, a power of two of places
  std::unordered_map<std::string, Token, Hash, std::equal_to<>> words_;  // that are one token
};

}  // namespace drydock::runtime
