#include "runtime/completion_request.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/answer_text.h"
#include "runtime/request_fields.h"

namespace drydock::runtime {
namespace {

using core::Json;

constexpr int64_t kMostStopStrings = 4, kLongestStop = 1024, kMostLogprobs = 20, kMostStopTokens = 64;
constexpr double kLongestTimeout_s = 7 * 86400.0;
// No token of the vocabularies in use stands for more bytes: the longest of Llama-3 and Qwen3 are runs of 128 spaces.
constexpr int64_t kMostBytesOfToken = 256;

// Known fields that would change the answer in ways that are not offered, with what asks for nothing.
void refuse_unsupported(const RequestFields& fields) {
  struct Neutral {
    const char* field;
    double value;
  };
  static constexpr Neutral kNumbers[] = {
      {"presence_penalty", 0}, {"frequency_penalty", 0}, {"repetition_penalty", 1}, {"min_p", 0}, {"min_tokens", 0}};
  for (const auto& [field, value] : kNumbers)
    if (const auto given = fields.number(field, -1e9, 1e9); given && *given != value)
      RequestFields::refuse(field, "not supported; leave it out", "unsupported_parameter");
  for (const char* field : {"logit_bias", "tools", "functions", "suffix", "guided_json", "guided_regex",
                            "guided_choice", "guided_grammar", "structured_outputs"})
    if (const Json* value = fields.find(field);
        value && !(value->is_string() ? value->get<std::string>().empty() : value->empty()))
      RequestFields::refuse(field, "not supported; leave it out", "unsupported_parameter");
  if (const Json* format = fields.find("response_format"))
    if (!format->is_object() || format->value("type", Json()) != "text")
      RequestFields::refuse("response_format", "only {\"type\": \"text\"} is supported", "unsupported_parameter");
  if (fields.boolean("use_beam_search"))
    RequestFields::refuse("use_beam_search", "not supported; leave it out", "unsupported_parameter");
}

Token token_of(const Json& value, const std::string& field, int64_t vocabulary) {
  if (!value.is_number_integer() || value < 0 || value >= vocabulary)
    RequestFields::refuse(field, "want token ids from 0 to " + std::to_string(vocabulary - 1) + ", found " +
                                     value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 40));
  return value.get<Token>();
}

struct Prompt {
  std::vector<Token> tokens;
  std::string text;  // kept for echo only
};

[[noreturn]] void too_long(const std::string& field, int64_t prompt, int64_t answer, int64_t longest) {
  RequestFields::refuse(field,
                        "the prompt has " + std::to_string(prompt) + " tokens and the answer asks for " +
                            std::to_string(answer) + "; together at most " + std::to_string(longest) + " fit",
                        "context_length_exceeded");
}

void check_text_length(const std::string& field, size_t bytes, const CompletionRules& rules) {
  if (static_cast<int64_t>(bytes) / kMostBytesOfToken > rules.longest_sequence)
    RequestFields::refuse(
        field, std::to_string(bytes) + " bytes can't fit into " + std::to_string(rules.longest_sequence) + " tokens",
        "context_length_exceeded");
}

Prompt text_prompt(const std::string& text, const CompletionRules& rules) {
  check_text_length("prompt", text.size(), rules);
  Prompt out;
  out.tokens.assign(rules.codec.begin_tokens().begin(), rules.codec.begin_tokens().end());
  const std::vector<Token> tokens = rules.codec.encode(text, true);
  out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
  out.text = text;
  return out;
}

Prompt token_prompt(const Json& list, const CompletionRules& rules) {
  Prompt out;
  out.tokens.reserve(list.size());
  for (const Json& value : list) out.tokens.push_back(token_of(value, "prompt", rules.codec.vocabulary()));
  return out;
}

std::vector<Prompt> text_prompts(const RequestFields& fields, const CompletionRules& rules) {
  const Json* prompt = fields.find("prompt");
  if (!prompt) RequestFields::refuse("prompt", "missing");
  if (prompt->is_string()) return {text_prompt(prompt->get_ref<const std::string&>(), rules)};
  if (!prompt->is_array() || prompt->empty())
    RequestFields::refuse("prompt", "want a string, a list of token ids, or a list of either");
  if (prompt->front().is_number()) return {token_prompt(*prompt, rules)};
  if (prompt->size() > static_cast<size_t>(rules.choices))
    RequestFields::refuse("prompt", "at most " + std::to_string(rules.choices) + " prompts in a request");
  std::vector<Prompt> out;
  for (const Json& one : *prompt) {
    if (one.is_string())
      out.push_back(text_prompt(one.get_ref<const std::string&>(), rules));
    else if (one.is_array())
      out.push_back(token_prompt(one, rules));
    else
      RequestFields::refuse("prompt", "want a string, a list of token ids, or a list of either");
  }
  return out;
}

// A message's content: a string, or parts of text.
std::string message_text(const Json& message, const std::string& where) {
  const auto found = message.find("content");
  if (found == message.end() || found->is_null()) {
    if (message.value("role", Json()) == "assistant") return "";
    RequestFields::refuse("messages", where + " has no content");
  }
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) RequestFields::refuse("messages", where + ": content: want a string or a list of text parts");
  std::string out;
  for (const Json& part : *found) {
    const auto text = part.is_object() ? part.find("text") : part.end();
    if (!part.is_object() || part.value("type", Json()) != "text" || text == part.end() || !text->is_string())
      RequestFields::refuse("messages",
                            where + ": content: only parts {\"type\": \"text\", \"text\": \"...\"} are supported");
    out += text->get_ref<const std::string&>();
  }
  return out;
}

std::vector<Prompt> chat_prompt(const RequestFields& fields, const CompletionRules& rules) {
  const Json* list = fields.find("messages");
  if (!list) RequestFields::refuse("messages", "missing");
  if (!list->is_array() || list->empty()) RequestFields::refuse("messages", "want a list of one message or more");
  std::vector<ChatMessage> messages;
  size_t bytes = 0;
  for (const Json& message : *list) {
    const std::string where = "message " + std::to_string(messages.size());
    if (!message.is_object()) RequestFields::refuse("messages", where + ": want an object");
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string()) RequestFields::refuse("messages", where + ": want a role");
    // "developer" is what OpenAI's newer models call their system prompt.
    const std::string name = *role == "developer" ? "system" : role->get<std::string>();
    messages.push_back({name, message_text(message, where)});
    bytes += messages.back().content.size();
  }
  check_text_length("messages", bytes, rules);
  try {
    return {{rules.codec.encode(rules.codec.chat_prompt(messages), true), ""}};
  } catch (const core::Error& error) {
    RequestFields::refuse("messages", error.what());
  }
}

void read_model(const RequestFields& fields, const CompletionRules& rules, CompletionRequest& out) {
  const std::string* model = fields.text("model");
  if (model && std::find(rules.models.begin(), rules.models.end(), *model) == rules.models.end())
    throw ApiError(404, "model '" + model->substr(0, 200) + "' is not served here; '" + rules.models.front() + "' is",
                   "model", "model_not_found");
  out.model = model ? *model : rules.models.front();
}

std::vector<std::string> read_stops(const RequestFields& fields) {
  const Json* stop = fields.find("stop");
  if (!stop) return {};
  const std::string want = "want a string or a list of up to " + std::to_string(kMostStopStrings) + ", each of 1 to " +
                           std::to_string(kLongestStop) + " bytes";
  const Json list = stop->is_array() ? *stop : Json::array({*stop});
  if (list.size() > static_cast<size_t>(kMostStopStrings)) RequestFields::refuse("stop", want);
  std::vector<std::string> out;
  for (const Json& one : list) {
    if (!one.is_string() || one.get_ref<const std::string&>().empty() ||
        one.get_ref<const std::string&>().size() > static_cast<size_t>(kLongestStop))
      RequestFields::refuse("stop", want);
    out.push_back(one.get<std::string>());
  }
  return out;
}

std::vector<Token> read_stop_tokens(const RequestFields& fields, const TextCodec& codec) {
  std::vector<Token> out;
  if (!fields.boolean("ignore_eos")) out.assign(codec.stop_tokens().begin(), codec.stop_tokens().end());
  const Json* ids = fields.find("stop_token_ids");
  if (!ids) return out;
  if (!ids->is_array() || ids->size() > static_cast<size_t>(kMostStopTokens))
    RequestFields::refuse("stop_token_ids", "want a list of up to " + std::to_string(kMostStopTokens) + " token ids");
  for (const Json& id : *ids) out.push_back(token_of(id, "stop_token_ids", codec.vocabulary()));
  return out;
}

int read_logprobs(const RequestFields& fields, CompletionKind kind) {
  if (kind == CompletionKind::text) return static_cast<int>(fields.integer("logprobs", 0, kMostLogprobs).value_or(-1));
  const bool wanted = fields.boolean("logprobs");
  const auto top = fields.integer("top_logprobs", 0, kMostLogprobs);
  if (top && *top > 0 && !wanted) RequestFields::refuse("top_logprobs", "needs \"logprobs\": true");
  return wanted ? static_cast<int>(top.value_or(0)) : -1;
}

Sampling read_sampling(const RequestFields& fields, int logprobs, core::Random& random) {
  Sampling out;
  out.temperature = static_cast<float>(fields.number("temperature", 0, 2).value_or(1));
  out.top_p = static_cast<float>(fields.number("top_p", 0, 1).value_or(1));
  // -1 is how vLLM's clients say "all".
  out.top_k = static_cast<int32_t>(
      std::max<int64_t>(fields.integer("top_k", -1, std::numeric_limits<int32_t>::max()).value_or(0), 0));
  if (out.top_p <= 0) {  // nothing but the most likely token
    out.top_p = 1;
    out.top_k = 1;
  }
  const auto seed = fields.integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  out.seed = seed ? static_cast<uint64_t>(*seed) : random.next();
  out.logprobs = logprobs;
  return out;
}

// Tokens that the answer may have. The newer name goes before the older one.
int64_t read_most_tokens(const RequestFields& fields, CompletionKind kind, int64_t prompt, int64_t longest) {
  constexpr int64_t kMost = int64_t{1} << 40;  // a number, whatever the model; what fits is seen below
  const auto older = fields.integer("max_tokens", 1, kMost), newer = fields.integer("max_completion_tokens", 1, kMost);
  const std::string field = kind == CompletionKind::chat ? "messages" : "prompt";
  const int64_t room = longest - prompt;
  if (room < 1) too_long(field, prompt, newer.value_or(older.value_or(1)), longest);
  if (newer || older) {
    const int64_t asked = newer ? *newer : *older;
    if (asked > room) too_long(newer ? "max_completion_tokens" : "max_tokens", prompt, asked, longest);
    return asked;
  }
  return kind == CompletionKind::chat ? room : std::min<int64_t>(16, room);  // OpenAI's defaults
}

void read_stream(const RequestFields& fields, CompletionRequest& out) {
  out.stream = fields.boolean("stream");
  const Json* options = fields.find("stream_options");
  if (!options) return;
  if (!options->is_object()) RequestFields::refuse("stream_options", "want an object");
  if (!out.stream) RequestFields::refuse("stream_options", "needs \"stream\": true");
  if (const auto usage = options->find("include_usage"); usage != options->end() && !usage->is_null()) {
    if (!usage->is_boolean()) RequestFields::refuse("stream_options.include_usage", "want true or false");
    out.include_usage = usage->get<bool>();
  }
}

std::string echo_of(const Prompt& prompt, const TextCodec& codec) {
  if (!prompt.text.empty()) return prompt.text;
  AnswerText text({});
  std::string out;
  for (const Token token : prompt.tokens) text.push(codec.bytes(token), out);
  text.finish(out);
  return out;
}

bool read_echo(const RequestFields& fields, const CompletionRequest& request) {
  const bool echo = fields.boolean("echo");
  if (!echo) return false;
  if (request.kind == CompletionKind::chat)
    RequestFields::refuse("echo", "not supported in chats", "unsupported_parameter");
  if (request.logprobs >= 0)
    RequestFields::refuse("echo", "not supported together with logprobs", "unsupported_parameter");
  return true;
}

int64_t read_copies(const RequestFields& fields, size_t prompts, int choices) {
  const int64_t most = std::max<int64_t>(choices / static_cast<int64_t>(prompts), 1);
  const int64_t n = fields.integer("n", 1, most).value_or(1);
  if (const auto best_of = fields.integer("best_of", 1, 1000); best_of && *best_of != n)
    RequestFields::refuse("best_of", "not supported unless it equals n", "unsupported_parameter");
  return n;
}

}  // namespace

CompletionRequest parse_completion(CompletionKind kind, std::string_view body, const CompletionRules& rules,
                                   core::Random& random) {
  const RequestFields fields = RequestFields::parse(body);
  CompletionRequest out;
  out.kind = kind;
  read_model(fields, rules, out);
  read_stream(fields, out);
  fields.text("user");
  out.stops = read_stops(fields);
  out.logprobs = read_logprobs(fields, kind);
  out.timeout_s = fields.number("timeout", 1e-3, kLongestTimeout_s);
  const Sampling sampling = read_sampling(fields, out.logprobs, random);
  const std::vector<Token> stop_tokens = read_stop_tokens(fields, rules.codec);
  const bool echo = read_echo(fields, out);
  refuse_unsupported(fields);

  const std::vector<Prompt> prompts =
      kind == CompletionKind::chat ? chat_prompt(fields, rules) : text_prompts(fields, rules);
  const int64_t copies = read_copies(fields, prompts.size(), rules.choices);
  for (const Prompt& prompt : prompts) {
    if (prompt.tokens.empty())
      RequestFields::refuse(kind == CompletionKind::chat ? "messages" : "prompt", "no tokens in it");
    const auto length = static_cast<int64_t>(prompt.tokens.size());
    const int64_t most = read_most_tokens(fields, kind, length, rules.longest_sequence);
    out.prompt_tokens += length;
    for (int64_t copy = 0; copy < copies; ++copy) {
      Generation& generation = out.generations.emplace_back();
      generation.prompt = prompt.tokens;
      generation.most_tokens = most;
      generation.sampling = sampling;
      // Copies of one prompt are to differ; the first choice is what the seed alone would give.
      if (copy > 0) generation.sampling.seed = core::mix(sampling.seed + static_cast<uint64_t>(copy));
      generation.stop_tokens = stop_tokens;
      if (echo) out.echoes.push_back(echo_of(prompt, rules.codec));
    }
  }
  return out;
}

std::string tokenize(std::string_view body, const CompletionRules& rules) {
  const RequestFields fields = RequestFields::parse(body);
  CompletionRequest ignored;
  read_model(fields, rules, ignored);
  const bool chat = fields.find("messages") != nullptr;
  const std::vector<Prompt> prompts = chat ? chat_prompt(fields, rules) : text_prompts(fields, rules);
  if (prompts.size() != 1) RequestFields::refuse("prompt", "one at a time");
  Json out = {{"count", prompts.front().tokens.size()},
              {"max_model_len", rules.longest_sequence},
              {"tokens", prompts.front().tokens}};
  return out.dump();
}

std::string detokenize(std::string_view body, const CompletionRules& rules) {
  const RequestFields fields = RequestFields::parse(body);
  CompletionRequest ignored;
  read_model(fields, rules, ignored);
  const Json* tokens = fields.find("tokens");
  if (!tokens || !tokens->is_array()) RequestFields::refuse("tokens", "want a list of token ids");
  AnswerText text({});
  std::string out;
  for (const Json& token : *tokens)
    text.push(rules.codec.bytes(token_of(token, "tokens", rules.codec.vocabulary())), out);
  text.finish(out);
  return Json{{"prompt", out}}.dump();
}

}  // namespace drydock::runtime
