#pragma once
// The body of POST /v1/completions and /v1/chat/completions, read into generations.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/random.h"
#include "runtime/generation.h"
#include "runtime/text_codec.h"

namespace drydock::runtime {

enum class CompletionKind : uint8_t { text, chat };

// What a request is read against.
struct CompletionRules {
  const TextCodec& codec;
  const std::vector<std::string>& models;
  int64_t longest_sequence = 0;  // prompt and answer [tokens]
  int choices = 16;              // the most that one request may ask for
};

struct CompletionRequest {
  CompletionKind kind = CompletionKind::text;
  std::string model;                    // as it was asked for
  std::vector<Generation> generations;  // one a choice, prompts in order and the n of each together; without ids
  std::vector<std::string> echoes;      // text to begin each choice with; empty: none
  std::vector<std::string> stops;       // stop strings, not empty
  bool stream = false, include_usage = false;
  int logprobs = -1;          // alternatives to tell with each token; -1: no log-probabilities
  int64_t prompt_tokens = 0;  // of all prompts, each counted once
  std::optional<double> timeout_s;
};

// `random` draws the seeds that are not given. Throws ApiError naming the field: 400, or 404 for a model not served.
// Fields that are not known are ignored; those that are known, can't be honoured and ask for something are refused.
CompletionRequest parse_completion(CompletionKind kind, std::string_view body, const CompletionRules& rules,
                                   core::Random& random);

// Bodies of POST /tokenize and /detokenize, and their answers' bodies.
std::string tokenize(std::string_view body, const CompletionRules& rules);
std::string detokenize(std::string_view body, const CompletionRules& rules);

}  // namespace drydock::runtime
