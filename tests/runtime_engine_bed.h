#pragma once
// Sequences that a test runs on an engine, step by step.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "runtime/cpu_engine.h"

namespace drydock::tests {

inline std::filesystem::path golden_dir(const std::string& model) {
  return std::filesystem::path(DRYDOCK_SOURCE_DIR) / "tests/golden" / model;
}

constexpr int64_t kBedBlocks = 128, kBedBlockTokens = 8;

// With the weights of tests/golden/make_engine_golden.py.
inline std::unique_ptr<runtime::Engine> golden_engine(const std::string& model, core::Dtype dtype = core::Dtype::fp32,
                                                      int threads = 1) {
  runtime::EngineOptions options;
  options.dtype = dtype;
  options.kv_blocks = kBedBlocks;
  options.block_tokens = kBedBlockTokens;
  options.threads = threads;
  options.random_weights = 7;
  return runtime::make_cpu_engine(golden_dir(model), options);
}

// One sequence: its tokens, and those of them whose KV is in its blocks.
struct Sequence {
  std::vector<runtime::Token> tokens;
  int64_t cached = 0;
  std::vector<int32_t> blocks;
  runtime::Sampling sampling{.temperature = 0};
  int64_t answered = 0;

  Sequence(std::vector<runtime::Token> prompt, int32_t first_block, int64_t block_count) : tokens(std::move(prompt)) {
    // Not in order, so that nothing passes that ignores the table; counts are no multiples of 11.
    for (int64_t i = 0; i < block_count; ++i)
      blocks.push_back(first_block + static_cast<int32_t>((i * 11 + 3) % block_count));
  }

  // The next `count` tokens that are not cached.
  runtime::SequenceWork work(int64_t count, int64_t outputs) const {
    return {.tokens = std::span(tokens).subspan(static_cast<size_t>(cached), static_cast<size_t>(count)),
            .context = cached,
            .blocks = blocks,
            .outputs = outputs,
            .sampling = &sampling,
            .answered = answered};
  }
  int64_t left() const { return static_cast<int64_t>(tokens.size()) - cached; }

  void take(runtime::Token token) {
    tokens.push_back(token);
    ++answered;
  }
};

// Computes all that is left of the sequence; its last `outputs` draws.
inline std::vector<runtime::GeneratedToken> run(runtime::Engine& engine, Sequence& sequence, int64_t outputs = 1) {
  runtime::RankWork work;
  work.prompts.push_back(sequence.work(sequence.left(), outputs));
  runtime::StepResult result;
  engine.step({&work, 1}, result);
  sequence.cached += sequence.left();
  return result.tokens;
}

// `count` more tokens of the answer, one a step.
inline std::vector<runtime::Token> generate(runtime::Engine& engine, Sequence& sequence, int64_t count) {
  std::vector<runtime::Token> out;
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(run(engine, sequence).front().token);
    sequence.take(out.back());
  }
  return out;
}

struct Golden {
  std::vector<runtime::Token> prompt, greedy;         // the answer's 200 tokens
  std::vector<runtime::Token> text, likeliest_after;  // after each token of the text
  std::vector<int64_t> places;
  std::vector<std::vector<double>> logits;
};

inline Golden read_golden(const std::string& model) {
  const core::Json json = core::read_json(golden_dir(model) / "golden.json");
  Golden out;
  json.at("prompt").get_to(out.prompt);
  json.at("greedy").get_to(out.greedy);
  json.at("text").get_to(out.text);
  json.at("likeliest_after").get_to(out.likeliest_after);
  json.at("places").get_to(out.places);
  json.at("logits").get_to(out.logits);
  return out;
}

}  // namespace drydock::tests
