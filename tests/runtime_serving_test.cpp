// Models served through dispatcher and workers on the CPU engine: overlapping steps and drafts change no answer.
#include <doctest/doctest.h>

#include "core/error.h"
#include "runtime/drafts.h"
#include "runtime/local_fleet.h"
#include "runtime/serve_config.h"
#include "tests/runtime_bed.h"
#include "tests/runtime_engine_bed.h"

using namespace drydock;
using namespace drydock::runtime;

namespace {

constexpr int64_t kServedBlocks = 80, kServedBlockTokens = 8;

std::unique_ptr<Engine> served_engine(const std::string& model, uint64_t seed, int64_t blocks) {
  EngineOptions options;
  options.dtype = core::Dtype::fp32;
  options.kv_blocks = blocks, options.block_tokens = kServedBlockTokens, options.threads = 1;
  options.random_weights = seed;
  return make_cpu_engine(tests::golden_dir(model), options);
}

struct Served {
  std::vector<std::vector<Token>> answers;
  ServiceStats stats;
};

struct ServeOptions {
  bool overlap = false, apart = false, prefix_cache = false;
  uint64_t draft_seed = 0;  // of the weights of a draft model; 0: none
  int64_t blocks = kServedBlocks;
};

// Twelve requests, half of them sampled; each third stops at a token of its own answer, which `plain` has.
Served serve_twelve(const ServeOptions& o, const Served* plain = nullptr) {
  const tests::Golden golden = tests::read_golden("qwen3");
  DispatcherSpec spec;
  if (o.apart) spec.pools = {{Stage::prefill, 1}, {Stage::decode, 1}};
  spec.longest_sequence = 500;
  Dispatcher dispatcher(spec);
  std::vector<LocalWorker> workers;
  for (const auto& pool : spec.pools) {
    LocalWorker w;
    w.spec.name = worker_name(pool.stage, 0), w.spec.stage = pool.stage;
    w.spec.policy = scheduler::vllm(64, 8);
    w.spec.policy.prefix_cache = o.prefix_cache;
    w.spec.kv_blocks = o.blocks, w.spec.block_tokens = kServedBlockTokens;
    w.spec.overlap = o.overlap;
    if (o.draft_seed > 0 && pool.stage != Stage::prefill) {
      w.spec.policy.decode_tokens = 5;
      const std::shared_ptr<Drafter> drafter = make_model_drafter(
          served_engine("qwen3", o.draft_seed, o.blocks),
          {.kv_blocks = o.blocks, .block_tokens = kServedBlockTokens, .longest = 500, .most_tokens = 48});
      w.spec.drafts = [drafter](std::span<const DraftQuestion> q) { return drafter->propose_all(q); };
      w.spec.forget_drafts = [drafter](Attempt a) { drafter->forget(a); };
    }
    w.engine = [blocks = o.blocks] { return served_engine("qwen3", 7, blocks); };
    workers.push_back(std::move(w));
  }
  LocalFleet fleet(dispatcher, std::move(workers), std::chrono::milliseconds(5));
  std::vector<std::shared_ptr<Reader>> readers;
  for (uint64_t i = 0; i < 12; ++i) {
    Generation g;
    g.prompt.assign(golden.prompt.begin(), golden.prompt.begin() + 12);
    g.prompt.insert(g.prompt.end(), golden.greedy.begin(), golden.greedy.begin() + static_cast<int64_t>(3 * i));
    g.most_tokens = 20 + static_cast<int64_t>(i % 5);
    g.sampling.temperature = i % 2 == 0 ? 0.0F : 0.8F;
    g.sampling.seed = i;
    if (plain != nullptr && i % 3 == 0) g.stop_tokens = {plain->answers[i][i]};
    readers.push_back(std::make_shared<Reader>());
    Service::Id id;
    REQUIRE(dispatcher.submit(g, readers.back(), id) == Admission::accepted);
  }
  Served out;
  for (const auto& reader : readers) {
    REQUIRE(reader->wait());
    REQUIRE(reader->reason() == "");
    out.answers.push_back(reader->tokens());
  }
  for (int tried = 0; tried < 100; ++tried) try {
      fleet.check();
      break;
    } catch (const std::logic_error&) {
      REQUIRE(tried < 99);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  out.stats = dispatcher.stats();
  return out;
}

}  // namespace

TEST_CASE("a model's answers are the same with overlapping steps and without, with a draft model and without") {
  const Served plain = serve_twelve({});
  const Served stopped = serve_twelve({}, &plain);
  for (uint64_t i = 0; i < 12; ++i) CHECK(plain.answers[i].size() == 20 + i % 5);
  for (uint64_t i = 0; i < 12; i += 3) CHECK(stopped.answers[i].size() <= i);
  const auto same = [&](const ServeOptions& o) {
    CHECK(serve_twelve(o).answers == plain.answers);
    const Served again = serve_twelve(o, &plain);
    CHECK(again.answers == stopped.answers);
    return again.stats.workers.back();
  };
  SUBCASE("overlapping") { same({.overlap = true}); }
  SUBCASE("overlapping, a full KV cache") {
    // Prompts of 12 to 45 tokens and answers of 20 to 24 take three to nine blocks of eight; 26 hold about four.
    CHECK(same({.overlap = true, .blocks = 26}).preemptions > 0);
  }
  SUBCASE("overlapping, prefill and decode apart, prefix cache") {
    same({.overlap = true, .apart = true, .prefix_cache = true});
  }
  SUBCASE("the model drafts for itself: every draft is right, of sampled answers too") {
    const WorkerStats w = same({.draft_seed = 7});
    CHECK(w.drafts > 0);
    CHECK(w.draft_tokens >= 3 * w.drafts);  // four, but for the last of an answer
    CHECK(w.accepted_tokens == w.draft_tokens);
  }
  SUBCASE("another model drafts: some drafts are wrong") {
    const WorkerStats w = same({.draft_seed = 8});
    CHECK(w.draft_tokens > 0);
    CHECK(w.accepted_tokens < w.draft_tokens);
  }
  SUBCASE("a draft model, prefill and decode apart, little KV for both") {
    same({.apart = true, .draft_seed = 7, .blocks = 26});
  }
}

TEST_CASE("a launched step computes what a step does, and takes the draws of the one before") {
  const auto engine = tests::golden_engine("qwen3"), other = tests::golden_engine("qwen3");
  const tests::Golden golden = tests::read_golden("qwen3");
  for (const float temperature : {0.0F, 0.9F}) {
    tests::Sequence plain(golden.prompt, 0, 40), launched(golden.prompt, 0, 40);
    plain.sampling = launched.sampling = {.temperature = temperature, .seed = 3, .logprobs = 2};
    std::vector<GeneratedToken> want;
    for (int i = 0; i < 12; ++i) {
      want.push_back(tests::run(*engine, plain).front());
      plain.take(want.back().token);
    }
    RankWork work;
    work.prompts.push_back(launched.work(launched.left(), 1));
    other->launch({&work, 1});
    StepResult result;
    const Token nothing[] = {0};
    for (int64_t i = 0; i < 12; ++i) {
      work = {};
      work.decodes.push_back({.tokens = nothing,
                              .context = static_cast<int64_t>(golden.prompt.size()) + i,
                              .blocks = launched.blocks,
                              .outputs = 1,
                              .sampling = &launched.sampling,
                              .answered = i + 1,
                              .follows = 0});
      if (i < 11) other->launch({&work, 1});
      other->wait(result);
      REQUIRE(result.tokens.size() == 1);
      CHECK(result.tokens[0].token == want[static_cast<size_t>(i)].token);
      CHECK(result.tokens[0].logprob == want[static_cast<size_t>(i)].logprob);
    }
  }
  RankWork wrong;
  const Token two[] = {1, 2};
  const int32_t block[] = {0};
  wrong.decodes.push_back({.tokens = two, .blocks = block, .outputs = 1, .follows = 0});
  StepResult result;
  CHECK_THROWS_AS(engine->step({&wrong, 1}, result), core::Error);
  wrong.decodes[0].tokens = std::span(two).first(1), wrong.decodes[0].follows = 1;  // the step before had one output
  CHECK_THROWS_AS(engine->step({&wrong, 1}, result), core::Error);
}

TEST_CASE("runtime.json names the folder of the model that drafts") {
  const std::string json =
      R"({"schema": "drydock.runtime", "version": 1, "model": "m", "engine": "cpu", "scheduling": "drydock",
          "mode": "agg", "router": {"policy": "round_robin"}, "workload": {"isl": 9, "osl": 9},
          "speculative": "draft:k=4,p=0.7", "draft_model_path": "small", "workers": [
            {"name": "worker/0", "role": "worker", "system": "h200_sxm", "gpus": 1, "parallelism": {},
             "precision": "bf16", "kv_block_tokens": 32, "kv_blocks": 10, "max_batch": 1, "max_tokens": 64}]})";
  CHECK(parse_serve_config(json, "runtime.json").draft_model_path == "small");
  std::string wrong = json;
  wrong.replace(wrong.find("\"small\""), 7, "5");
  CHECK_THROWS_WITH_AS(parse_serve_config(wrong, "runtime.json"), doctest::Contains("draft_model_path"), core::Error);
}
