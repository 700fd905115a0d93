#pragma once
// The requests a benchmark client sends: prompts of exact lengths that share what their load says they share.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/generation.h"
#include "simulator/arrivals.h"

namespace drydock::runtime {

// Tokens of prompts are drawn from low..high: in real vocabularies the lowest and highest are often special.
struct TokenRange {
  Token low = 1000, high = 29'999;
};
// For a vocabulary of so many tokens.
TokenRange token_range(int64_t vocabulary);

// The tokens of an arrival's prompt. Equal hashes give equal tokens up to the block's end; what no hash covers, and
// prompts without hashes, are unlike all others. `number`: of the request in its run. Same arguments, same tokens.
void prompt_tokens(const simulator::Arrival& arrival, int64_t hash_tokens, TokenRange range, uint64_t seed,
                   int64_t number, std::vector<Token>& tokens);

// Text for chats, of units that stand for the tokens above one by one: common English words with a space before them,
// each of which is one token of the usual vocabularies, or single letters, for servers whose tokens are bytes.
enum class TextUnit : uint8_t { word, letter };
std::string prompt_text(const std::vector<Token>& tokens, TextUnit unit);

// What every request of a run has in common.
struct RequestForm {
  bool chat = false;
  std::string model;
  std::string extra;  // more fields of the body, as JSON without braces; may be empty
  TextUnit unit = TextUnit::word;
  int64_t chat_overhead = 0;  // tokens that the chat template adds to a prompt
  double tokens_per_unit = 1;
};
// The JSON to post: streamed, with usage, temperature 0, end of sequence ignored, as many output tokens as asked.
std::string request_body(const RequestForm& form, const std::vector<Token>& tokens, int64_t output_tokens);

}  // namespace drydock::runtime
