#include "runtime/chat_template.h"

#include <ctime>

#include "core/error.h"
#include "core/json.h"
#include "runtime/unicode_text.h"

namespace drydock::runtime {
namespace {

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

void require_known_role(const ChatMessage& message) {
  for (const char* known : {"system", "user", "assistant", "tool"})
    if (message.role == known) return;
  throw core::Error("messages: role '" + message.role.substr(0, 80) +
                    "' is not known; system, user, assistant or tool is right");
}

// ---- Llama 3 ------------------------------------------------------------------------------------------------------

std::string llama_message(std::string_view role, std::string_view content) {
  return "<|start_header_id|>" + std::string(role) + "<|end_header_id|>\n\n" + std::string(content) + "<|eot_id|>";
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::localtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%d %b %Y", &parts)};
}

// The default that the template sets, between quotes.
std::string default_date(std::string_view jinja) {
  constexpr std::string_view kSet = "set date_string = \"";
  if (contains(jinja, "strftime_now")) return "";
  const size_t at = jinja.find(kSet);
  if (at == std::string_view::npos) return "26 Jul 2024";
  const std::string_view rest = jinja.substr(at + kSet.size());
  return std::string(rest.substr(0, std::min<size_t>(rest.find('"'), 64)));
}

// Jinja's tojson of a string, as transformers sets it up: no escapes but those of JSON.
std::string json_text(const std::string& text) {
  return core::Json(text).dump(-1, ' ', false, core::Json::error_handler_t::replace);
}

std::string render_llama31(const ChatTemplate& chat, std::span<const ChatMessage> messages) {
  std::string_view system;
  if (messages.front().role == "system") {
    system = strip(messages.front().content);
    messages = messages.subspan(1);
  }
  const std::string date = chat.date.empty() ? today() : chat.date;
  std::string out =
      "<|begin_of_text|>" + llama_message("system", "Cutting Knowledge Date: December 2023\nToday Date: " + date +
                                                        "\n\n" + std::string(system));
  for (const ChatMessage& message : messages)
    out += message.role == "tool" ? llama_message("ipython", json_text(message.content))
                                  : llama_message(message.role, strip(message.content));
  return out + "<|start_header_id|>assistant<|end_header_id|>\n\n";
}

std::string render_llama3(std::span<const ChatMessage> messages) {
  std::string out = "<|begin_of_text|>";
  for (const ChatMessage& message : messages) out += llama_message(message.role, strip(message.content));
  return out + "<|start_header_id|>assistant<|end_header_id|>\n\n";
}

// ---- Qwen3 --------------------------------------------------------------------------------------------------------

std::string_view without_leading_lines(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}
std::string_view without_trailing_lines(std::string_view text) {
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

// An earlier answer, taken apart as the template takes it.
struct ThoughtAnswer {
  std::string_view thought, answer;
};

ThoughtAnswer take_apart(std::string_view content) {
  constexpr std::string_view kBegin = "<think>", kEnd = "</think>";
  const size_t first = content.find(kEnd), last = content.rfind(kEnd);
  if (first == std::string_view::npos) return {"", content};
  std::string_view thought = without_trailing_lines(content.substr(0, first));
  if (const size_t begin = thought.rfind(kBegin); begin != std::string_view::npos)
    thought.remove_prefix(begin + kBegin.size());
  return {without_leading_lines(thought), without_leading_lines(content.substr(last + kEnd.size()))};
}

// Answers after this one belong to the question that is being answered, and keep their thoughts.
size_t last_question(std::span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i > 0; --i) {
    const ChatMessage& message = messages[i - 1];
    const std::string_view text = message.content;
    if (message.role == "user" && !(text.starts_with("<tool_response>") && text.ends_with("</tool_response>")))
      return i - 1;
  }
  return messages.size() - 1;
}

std::string qwen_answer(const ChatMessage& message, bool current, bool last) {
  const ThoughtAnswer parts = take_apart(message.content);
  std::string out = "<|im_start|>assistant\n";
  if (current && (last || !parts.thought.empty())) {
    out += "<think>\n" + std::string(without_trailing_lines(without_leading_lines(parts.thought))) + "\n</think>\n\n";
    out += without_leading_lines(parts.answer);
  } else {
    out += parts.answer;
  }
  return out + "<|im_end|>\n";
}

std::string render_qwen3(ChatFamily family, std::span<const ChatMessage> messages) {
  const size_t question = last_question(messages);
  std::string out;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool last = i + 1 == messages.size();
    if (message.role == "tool") {
      // Neighbouring results share a turn of the user's.
      if (i == 0 || messages[i - 1].role != "tool") out += "<|im_start|>user";
      out += "\n<tool_response>\n" + message.content + "\n</tool_response>";
      if (last || messages[i + 1].role != "tool") out += "<|im_end|>\n";
    } else if (message.role == "assistant" && family != ChatFamily::qwen3_instruct) {
      out += qwen_answer(message, i > question, last);
    } else {
      out += "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n";
    }
  }
  return out + (family == ChatFamily::qwen3_thinking ? "<|im_start|>assistant\n<think>\n" : "<|im_start|>assistant\n");
}

}  // namespace

std::optional<ChatTemplate> recognise_template(std::string_view jinja,
                                               const std::function<bool(std::string_view)>& has_token) {
  if (jinja.empty()) {
    if (has_token("<|start_header_id|>") && has_token("<|eot_id|>")) return ChatTemplate{ChatFamily::llama3, ""};
    if (has_token("<|im_start|>") && has_token("<think>")) return ChatTemplate{ChatFamily::qwen3, ""};
    return std::nullopt;
  }
  if (contains(jinja, "<|start_header_id|>")) {
    if (!contains(jinja, "Today Date: ")) return ChatTemplate{ChatFamily::llama3, ""};
    return ChatTemplate{ChatFamily::llama31, default_date(jinja)};
  }
  // Qwen2.5's would put a system message of its own first.
  if (!contains(jinja, "<|im_start|>") || contains(jinja, "You are Qwen")) return std::nullopt;
  if (contains(jinja, "enable_thinking")) return ChatTemplate{ChatFamily::qwen3, ""};
  const bool thinks = contains(jinja, "assistant\\n<think>\\n' }}") || contains(jinja, "assistant\n<think>\n' }}");
  return ChatTemplate{thinks ? ChatFamily::qwen3_thinking : ChatFamily::qwen3_instruct, ""};
}

std::string render_chat(const ChatTemplate& chat, std::span<const ChatMessage> messages) {
  if (messages.empty()) throw core::Error("messages: is empty; one message or more is right");
  for (const ChatMessage& message : messages) require_known_role(message);
  if (chat.family == ChatFamily::llama31) return render_llama31(chat, messages);
  if (chat.family == ChatFamily::llama3) return render_llama3(messages);
  return render_qwen3(chat.family, messages);
}

}  // namespace drydock::runtime
