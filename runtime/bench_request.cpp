#include "runtime/bench_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "core/random.h"

namespace drydock::runtime {
namespace {

// Each a token of its own, with the space before it, in the vocabularies of GPT-2 and all that came after it.
constexpr std::string_view kPromptWords[] = {
    " the",   " of",    " and", " to",   " in",    " is",     " that", " for",  " it",    " as",    " was",
    " with",  " be",    " by",  " on",   " not",   " he",     " this", " are",  " or",    " his",   " from",
    " at",    " which", " but", " have", " an",    " had",    " they", " you",  " were",  " their", " one",
    " all",   " we",    " can", " her",  " has",   " there",  " been", " if",   " more",  " when",  " will",
    " would", " who",   " so",  " no",   " time",  " up",     " out",  " what", " about", " into",  " than",
    " other", " only",  " new", " some", " could", " people", " my",   " over", " first"};

void append_number(std::string& out, int64_t value) {
  const fmt::format_int text(value);
  out.append(text.data(), text.size());
}

}  // namespace

TokenRange token_range(int64_t vocabulary) {
  const int64_t high = std::clamp<int64_t>(vocabulary * 9 / 10, 2, 30'000);
  return {static_cast<Token>(std::min<int64_t>(1000, high / 10)), static_cast<Token>(high - 1)};
}

void prompt_tokens(const simulator::Arrival& arrival, int64_t hash_tokens, TokenRange range, uint64_t seed,
                   int64_t number, std::vector<Token>& tokens) {
  tokens.clear();
  tokens.reserve(static_cast<size_t>(arrival.prompt_tokens));
  const auto fill = [&](core::Random random, int64_t up_to) {
    const auto end = static_cast<size_t>(std::min(up_to, arrival.prompt_tokens));
    while (tokens.size() < end) tokens.push_back(static_cast<Token>(random.integer(range.low, range.high)));
  };
  int64_t end = 0;
  for (const uint64_t hash : arrival.hashes) fill(core::Random(hash, seed), end += hash_tokens);
  fill(core::Random(seed, static_cast<uint64_t>(number)), arrival.prompt_tokens);
}

std::string prompt_text(const std::vector<Token>& tokens, TextUnit unit) {
  std::string out;
  for (const Token token : tokens) {
    const auto at = static_cast<size_t>(token);
    if (unit == TextUnit::word)
      out += kPromptWords[at % std::size(kPromptWords)];
    else
      out += static_cast<char>('a' + at % 26);
  }
  return out;
}

std::string request_body(const RequestForm& form, const std::vector<Token>& tokens, int64_t output_tokens) {
  std::string out = "{\"model\":" + core::Json(form.model).dump();
  if (form.chat) {
    const double units = std::round(static_cast<double>(static_cast<int64_t>(tokens.size()) - form.chat_overhead) /
                                    form.tokens_per_unit);
    std::vector<Token> text = tokens;
    text.resize(static_cast<size_t>(std::max(1.0, units)), tokens.back());
    out += ",\"messages\":[{\"role\":\"user\",\"content\":\"" + prompt_text(text, form.unit) + "\"}]";
  } else {
    out += ",\"prompt\":[";
    for (const Token token : tokens) append_number(out, token), out += ',';
    out.back() = ']';
  }
  out += ",\"max_tokens\":";
  append_number(out, output_tokens);
  out += ",\"temperature\":0,\"ignore_eos\":true,\"stream\":true,\"stream_options\":{\"include_usage\":true}";
  if (!form.extra.empty()) out += ',' + form.extra;
  return out + '}';
}

}  // namespace drydock::runtime
