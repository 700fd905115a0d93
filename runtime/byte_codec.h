#pragma once
// For engines without a tokenizer: a byte is a token. Chats are written as ChatML.
#include "runtime/text_codec.h"

namespace drydock::runtime {

class ByteCodec : public TextCodec {
 public:
  // With a `vocabulary` above 256, prompts of a model's tokens are taken as well, and its other tokens are shown as
  // some printable character each.
  explicit ByteCodec(int64_t vocabulary = 256) : vocabulary_(vocabulary < 256 ? 256 : vocabulary) {}
  std::vector<Token> encode(std::string_view text, bool specials) const override;
  std::string bytes(Token token) const override;  // empty for tokens that are none of the vocabulary
  std::string chat_prompt(std::span<const ChatMessage> messages) const override;
  std::span<const Token> stop_tokens() const override { return {}; }
  int64_t vocabulary() const override { return vocabulary_; }

 private:
  int64_t vocabulary_;
};

}  // namespace drydock::runtime
