#pragma once
// Answers as OpenAI's clients read them: whole bodies, and server-sent events (WHATWG HTML, section 9.2) as they grow.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "runtime/api_error.h"
#include "runtime/completion_request.h"

namespace drydock::runtime {

// A token with its log-probability, in text.
struct ToldToken {
  Token token = 0;
  std::string bytes;  // empty: a special token
  float logprob = 0;
  struct Alternative {
    Token token = 0;
    std::string bytes;
    float logprob = 0;
  };
  std::vector<Alternative> top;
  int64_t offset = 0;  // where it begins in the choice's text [characters]
};

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
};

struct WholeChoice {
  std::string_view text;
  const char* finish_reason = nullptr;  // "stop" or "length"
  std::span<const ToldToken> told;
};

class CompletionWriter {
 public:
  CompletionWriter(const CompletionRequest& request, const std::string& id, int64_t created_s);

  // Appends an event: text that is new in a choice. `first`: of that choice. `finish_reason`: null while it goes on.
  void event(std::string& out, size_t choice, std::string_view text, bool first, std::span<const ToldToken> told,
             const char* finish_reason) const;
  void usage_event(std::string& out, const Usage& usage) const;
  static void error_event(std::string& out, const ApiError& error);
  static void last_event(std::string& out);

  std::string body(std::span<const WholeChoice> choices, const Usage& usage) const;

 private:
  core::Json logprobs(std::span<const ToldToken> told) const;
  core::Json head(bool whole) const;

  CompletionKind kind_;
  bool logprobs_, usage_in_events_;
  std::string id_, model_;
  int64_t created_s_;
  std::string event_head_, event_tail_;  // what all events of the answer begin and end with
};

// A token's text in log-probabilities: its characters; "bytes:\xe2\x82" where it is none; "token_id:7" where it is
// a special token.
std::string token_text(Token token, std::string_view bytes);

}  // namespace drydock::runtime
