#pragma once
// For engines without a tokenizer: a byte is a token. Chats are written as ChatML.
#include "runtime/text_codec.h"

namespace drydock::runtime {

class ByteCodec : public TextCodec {
 public:
  std::vector<Token> encode(std::string_view text, bool specials) const override;
  std::string bytes(Token token) const override;  // empty for tokens that are no byte
  std::string chat_prompt(std::span<const ChatMessage> messages) const override;
  std::span<const Token> stop_tokens() const override { return {}; }
  int64_t vocabulary() const override { return 256; }
};

}  // namespace drydock::runtime
