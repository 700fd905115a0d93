#include "runtime/special_tokens.h"

namespace drydock::runtime {

void SpecialTokens::add(std::string_view text, Token token) {
  uint32_t node = 0;
  begins_[static_cast<unsigned char>(text[0])] = true;
  for (const char c : text) {
    const auto [found, is_new] =
        next_.try_emplace(uint64_t{node} * 256 + static_cast<unsigned char>(c), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = found->second;
  }
  nodes_[node].token = token;
}

size_t SpecialTokens::match(std::string_view text, Token& token) const {
  size_t longest = 0;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto found = next_.find(uint64_t{node} * 256 + static_cast<unsigned char>(text[i]));
    if (found == next_.end()) break;
    node = found->second;
    if (nodes_[node].token >= 0) token = nodes_[node].token, longest = i + 1;
  }
  return longest;
}

void SpecialTokens::split(std::string_view text, const std::function<void(std::string_view)>& words,
                          const std::function<void(Token)>& token) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    Token found = 0;
    const size_t bytes = begins_[static_cast<unsigned char>(text[at])] ? match(text.substr(at), found) : 0;
    if (bytes == 0) {
      ++at;
      continue;
    }
    if (at > done) words(text.substr(done, at - done));
    token(found);
    done = at += bytes;
  }
  if (done < text.size()) words(text.substr(done));
}

}  // namespace drydock::runtime
