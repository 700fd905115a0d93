#include "runtime/byte_codec.h"

namespace drydock::runtime {

std::vector<Token> ByteCodec::encode(std::string_view text, bool) const {
  std::vector<Token> out;
  out.reserve(text.size());
  for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  return out;
}

std::string ByteCodec::bytes(Token token) const {
  if (token < 0 || token >= vocabulary_) return {};
  constexpr Token kBytes = 256, kPrintable = 95;
  return std::string(1, static_cast<char>(token < kBytes ? token : ' ' + token % kPrintable));
}

std::string ByteCodec::chat_prompt(std::span<const ChatMessage> messages) const {
  std::string out;
  for (const ChatMessage& message : messages)
    out += "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n";
  return out + "<|im_start|>assistant\n";
}

}  // namespace drydock::runtime
