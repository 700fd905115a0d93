#include "runtime/completion_writer.h"

#include "runtime/answer_text.h"

namespace drydock::runtime {
namespace {

using core::Json;

std::string dumped(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

// A chat's token; alternatives have the same form without alternatives of their own.
Json chat_token(Token token, std::string_view bytes, float logprob) {
  Json numbers = Json::array();
  for (const char c : bytes) numbers.push_back(static_cast<unsigned char>(c));
  return {{"token", token_text(token, bytes)},
          {"logprob", logprob},
          {"bytes", bytes.empty() ? Json() : std::move(numbers)}};
}

Json chat_logprobs(std::span<const ToldToken> told) {
  Json content = Json::array();
  for (const ToldToken& token : told) {
    Json one = chat_token(token.token, token.bytes, token.logprob);
    Json top = Json::array();
    for (const auto& other : token.top) top.push_back(chat_token(other.token, other.bytes, other.logprob));
    one["top_logprobs"] = std::move(top);
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json text_logprobs(std::span<const ToldToken> told) {
  Json tokens = Json::array(), logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const ToldToken& token : told) {
    tokens.push_back(token_text(token.token, token.bytes));
    logprobs.push_back(token.logprob);
    Json top = Json::object();
    for (const auto& other : token.top) top.emplace(token_text(other.token, other.bytes), other.logprob);
    tops.push_back(std::move(top));
    offsets.push_back(token.offset);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace

std::string token_text(Token token, std::string_view bytes) {
  if (bytes.empty()) return "token_id:" + std::to_string(token);
  Utf8Assembler characters;
  std::string text;
  characters.push(bytes, text);
  if (text == bytes) return text;
  constexpr char kDigits[] = "0123456789abcdef";
  text = "bytes:";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return text;
}

CompletionWriter::CompletionWriter(const CompletionRequest& request, const std::string& id, int64_t created_s)
    : kind_(request.kind),
      logprobs_(request.logprobs >= 0),
      usage_in_events_(request.include_usage),
      id_(id),
      model_(request.model),
      created_s_(created_s) {
  event_head_ = dumped(head(false));
  event_head_.pop_back();  // the object goes on
  event_head_ = "data: " + event_head_ + ",\"choices\":[";
  event_tail_ = usage_in_events_ ? "],\"usage\":null}\n\n" : "]}\n\n";
}

core::Json CompletionWriter::head(bool whole) const {
  const bool chat = kind_ == CompletionKind::chat;
  const char* object = !chat ? "text_completion" : whole ? "chat.completion" : "chat.completion.chunk";
  return {{"id", id_}, {"object", object}, {"created", created_s_}, {"model", model_}};
}

core::Json CompletionWriter::logprobs(std::span<const ToldToken> told) const {
  if (!logprobs_) return nullptr;
  return kind_ == CompletionKind::chat ? chat_logprobs(told) : text_logprobs(told);
}

void CompletionWriter::event(std::string& out, size_t choice, std::string_view text, bool first,
                             std::span<const ToldToken> told, const char* finish_reason) const {
  out += event_head_;
  out += "{\"index\":";
  out += std::to_string(choice);
  // An answer that ended without a token still has its role told.
  if (kind_ == CompletionKind::chat) {
    out += first ? ",\"delta\":{\"role\":\"assistant\",\"content\":" : ",\"delta\":{";
    if (!first && (!text.empty() || !finish_reason)) out += "\"content\":";
    if (first || !text.empty() || !finish_reason) out += dumped(text);
    out += '}';
  } else {
    out += ",\"text\":";
    out += dumped(text);
  }
  out += ",\"logprobs\":";
  if (told.empty())
    out += "null";
  else
    out += dumped(logprobs(told));
  out += ",\"finish_reason\":";
  if (finish_reason) {
    out += '"';
    out += finish_reason;
    out += "\"}";
  } else {
    out += "null}";
  }
  out += event_tail_;
}

void CompletionWriter::usage_event(std::string& out, const Usage& usage) const {
  if (!usage_in_events_) return;
  out += event_head_ + "],\"usage\":" + dumped(usage_json(usage)) + "}\n\n";
}

void CompletionWriter::error_event(std::string& out, const ApiError& error) { out += "data: " + error.json() + "\n\n"; }

void CompletionWriter::last_event(std::string& out) { out += "data: [DONE]\n\n"; }

std::string CompletionWriter::body(std::span<const WholeChoice> choices, const Usage& usage) const {
  Json list = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    Json choice = {{"index", i}};
    if (kind_ == CompletionKind::chat)
      choice["message"] = {{"role", "assistant"}, {"content", choices[i].text}, {"refusal", nullptr}};
    else
      choice["text"] = choices[i].text;
    choice["logprobs"] = logprobs(choices[i].told);
    choice["finish_reason"] = choices[i].finish_reason;
    list.push_back(std::move(choice));
  }
  Json out = head(true);
  out["choices"] = std::move(list);
  out["usage"] = usage_json(usage);
  return dumped(out);
}

}  // namespace drydock::runtime
