#pragma once
// How the families write a conversation down: what their Jinja templates give for text messages without tools.
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "runtime/text_codec.h"

namespace drydock::runtime {

enum class ChatFamily : uint8_t {
  llama3,          // Llama 3
  llama31,         // Llama 3.1 to 3.3: a system message with dates always comes first
  qwen3,           // Qwen3, which thinks unless told otherwise
  qwen3_instruct,  // Qwen3-Instruct-2507: plain ChatML
  qwen3_thinking,  // Qwen3-Thinking-2507: answers begin inside <think>
};

struct ChatTemplate {
  ChatFamily family = ChatFamily::qwen3;
  std::string date;  // llama31: "26 Jul 2024"; empty: of the day, as Llama 3.2's template has it
};

// Tells the family from the template's text (the chat_template of tokenizer_config.json), or, without one, from which
// tokens there are. nullopt: none of these.
std::optional<ChatTemplate> recognise_template(std::string_view jinja,
                                               const std::function<bool(std::string_view)>& has_token);

// Up to where the answer begins. Throws core::Error on an unknown role and on no messages.
std::string render_chat(const ChatTemplate& chat, std::span<const ChatMessage> messages);

}  // namespace drydock::runtime
