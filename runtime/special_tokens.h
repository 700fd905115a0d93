#pragma once
// Tokens that are taken out of a text before it is cut into words: "<|im_end|>" and its like.
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/generation.h"

namespace drydock::runtime {

// Immutable once filled; safe to use from many threads.
class SpecialTokens {
 public:
  // `text` is not empty.
  void add(std::string_view text, Token token);

  // Calls words(piece) for what is between tokens, which may be all of the text and is never empty, and token(id) for
  // tokens, in order: of those that begin first the longest.
  void split(std::string_view text, const std::function<void(std::string_view)>& words,
             const std::function<void(Token)>& token) const;

 private:
  struct Node {
    Token token = -1;  // that ends here
  };
  size_t match(std::string_view text, Token& token) const;  // bytes; 0: none begins here

  std::vector<Node> nodes_{1};
  std::unordered_map<uint64_t, uint32_t> next_;  // node * 256 + byte -> node
  std::array<bool, 256> begins_{};
};

}  // namespace drydock::runtime
