#include <doctest/doctest.h>

#include "core/error.h"
#include "runtime/drafts.h"
#include "tests/runtime_engine_bed.h"

using namespace drydock;
using namespace drydock::runtime;
using tests::generate;
using tests::golden_engine;
using tests::run;
using tests::Sequence;

namespace {

// Answers with `drafter`'s guesses verified in one step each; counts the steps.
std::vector<Token> generate_with_drafts(Engine& engine, Sequence& sequence, Drafter& drafter, size_t count,
                                        int& steps) {
  constexpr int64_t kMost = 4;
  std::vector<Token> out;
  while (out.size() < count) {
    const std::vector<Token> drafts = drafter.propose(1, sequence.tokens, kMost);
    Sequence guessed = sequence;
    guessed.tokens.insert(guessed.tokens.end(), drafts.begin(), drafts.end());
    const auto drawn = run(engine, guessed, static_cast<int64_t>(drafts.size()) + 1);
    sequence.cached = static_cast<int64_t>(sequence.tokens.size());
    const int64_t kept = accepted(drafts, drawn);
    for (int64_t i = 0; i < kept; ++i) {
      out.push_back(drawn[static_cast<size_t>(i)].token);
      sequence.take(out.back());
    }
    sequence.cached += kept - 1;
    ++steps;
  }
  drafter.forget(1);
  out.resize(count);
  return out;
}

}  // namespace

TEST_CASE("answers with drafts are the answers without, greedy and sampled") {
  const tests::Golden golden = tests::read_golden("llama3");
  // A prompt that repeats itself gives the look-up something to find.
  std::vector<Token> prompt = golden.prompt;
  prompt.insert(prompt.end(), golden.greedy.begin(), golden.greedy.begin() + 60);
  prompt.insert(prompt.end(), golden.prompt.begin(), golden.prompt.end());
  for (const float temperature : {0.0F, 0.7F}) {
    for (const bool by_model : {false, true}) {
      CAPTURE(temperature);
      CAPTURE(by_model);
      const auto engine = golden_engine("llama3");
      const auto drafter = by_model ? make_model_drafter(golden_engine("llama3"),
                                                         {.kv_blocks = 40, .block_tokens = tests::kBedBlockTokens})
                                    : make_ngram_drafter({});
      Sequence plain(prompt, 0, 45), drafted(prompt, 50, 45);
      plain.sampling = drafted.sampling = {.temperature = temperature, .seed = 11};
      int steps = 0;
      const std::vector<Token> want = generate(*engine, plain, 100);
      CHECK(generate_with_drafts(*engine, drafted, *drafter, 100, steps) == want);
      // The same model guesses its own greedy answer, five tokens a step; sampled, some guesses hold. The look-up finds
      // what made-up weights repeat.
      if (temperature == 0) CHECK(steps <= (by_model ? 20 : 60));
      if (by_model) CHECK(steps < 100);
    }
  }
}

TEST_CASE("look-up drafts: the latest of the longest earlier runs, loops go on") {
  const auto drafter = make_ngram_drafter({.least_run = 2, .most_run = 3});
  const std::vector<Token> text = {1, 2, 3, 9, 8, 2, 3, 7, 7, 1, 2, 3};
  CHECK(drafter->propose(0, text, 3) == std::vector<Token>{9, 8, 2});  // after (1 2 3), not after the later (2 3)
  const std::vector<Token> twice = {2, 3, 5, 2, 3, 6, 4, 2, 3};
  CHECK(drafter->propose(0, twice, 2) == std::vector<Token>{6, 4});
  const std::vector<Token> loop = {5, 1, 2, 1, 2};
  CHECK(drafter->propose(0, loop, 5) == std::vector<Token>{1, 2, 1, 2, 1});
  CHECK(drafter->propose(0, std::vector<Token>{1, 2, 3, 4}, 3).empty());
  CHECK(drafter->propose(0, std::vector<Token>{1}, 3).empty());
  CHECK_THROWS_AS(make_ngram_drafter({.least_run = 3, .most_run = 2}), core::Error);
}

TEST_CASE("a draft counts while it is what was drawn") {
  const auto drawn = [](std::vector<Token> tokens) {
    std::vector<GeneratedToken> out;
    for (const Token token : tokens) out.push_back({token, 0, {}});
    return out;
  };
  const std::vector<Token> drafts = {4, 5, 6};
  CHECK(accepted(drafts, drawn({4, 5, 6, 7})) == 4);
  CHECK(accepted(drafts, drawn({4, 9, 6, 7})) == 2);
  CHECK(accepted(drafts, drawn({9, 5, 6, 7})) == 1);
  CHECK(accepted({}, drawn({3})) == 1);
}

TEST_CASE("a draft model short of blocks drops who waited longest, and then guesses nothing") {
  const tests::Golden golden = tests::read_golden("llama3");
  const auto drafter =
      make_model_drafter(golden_engine("llama3"), {.kv_blocks = 6, .block_tokens = tests::kBedBlockTokens});
  const std::vector<Token> want(golden.greedy.begin(), golden.greedy.begin() + 3);
  CHECK(drafter->propose(1, golden.prompt, 3) == want);  // 39 tokens in 5 of the 6 blocks
  CHECK(drafter->propose(2, golden.prompt, 3) == want);
  CHECK(drafter->propose(1, golden.prompt, 3) == want);
  CHECK(drafter->propose(3, std::vector<Token>(50, 1), 3).empty());
}
