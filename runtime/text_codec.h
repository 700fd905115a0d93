#pragma once
// Text to tokens and back, as a model's tokenizer and chat template have it.
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/generation.h"

namespace drydock::runtime {

struct ChatMessage {
  std::string role, content;  // "system", "user", "assistant" or "tool"
};

// Immutable; safe to use from many threads.
class TextCodec {
 public:
  virtual ~TextCodec() = default;
  // `specials`: "<|im_end|>" and its like become their tokens, as in a rendered chat; else they are plain text.
  virtual std::vector<Token> encode(std::string_view text, bool specials) const = 0;
  // What the token stands for, which may be a part of a UTF-8 character; empty for special tokens. Text is the bytes
  // of its tokens one after another.
  virtual std::string bytes(Token token) const = 0;
  // The messages as the model was taught them, up to where its answer begins. Throws core::Error on an unknown role.
  virtual std::string chat_prompt(std::span<const ChatMessage> messages) const = 0;
  virtual std::span<const Token> stop_tokens() const = 0;             // that end an answer
  virtual std::span<const Token> begin_tokens() const { return {}; }  // before every prompt that is not a chat
  virtual int64_t vocabulary() const = 0;
};

}  // namespace drydock::runtime
