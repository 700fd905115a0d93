#include <doctest/doctest.h>

#include "configurator/judge.h"
#include "core/random.h"
#include "tests/effort.h"

using namespace drydock;
using namespace drydock::configurator;

namespace {

constexpr int kQuestions = 10 / drydock::tests::kLighter;

Resources& judge_resources() {
  static Resources shared;
  return shared;
}

template <typename T, size_t N>
const T& pick(core::Random& random, const T (&from)[N]) {
  return from[static_cast<size_t>(random.uniform() * N)];
}

// Small enough to simulate all its candidates; the load by rate, by concurrency or neither.
Question random_question(int index) {
  core::Random random(5, static_cast<uint64_t>(index));
  Question q;
  q.model = pick(random, {"Qwen/Qwen3-32B", "gpt-oss-120b", "Qwen/Qwen3-30B-A3B"});
  q.system = pick(random, {"h200_sxm", "h100_sxm"});
  q.backend = pick(random, {models::Backend::trtllm, models::Backend::vllm, models::Backend::sglang});
  q.mode = pick(random, {ModeChoice::agg, ModeChoice::disagg, ModeChoice::both});
  q.gpus = pick(random, {2, 4});
  q.top = pick(random, {1, 3, 5});
  q.workload.isl = pick(random, {300, 1000, 3000});
  q.workload.osl = pick(random, {1, 50, 200});
  q.slo.ttft_ms = pick(random, {300.0, 1000.0, 4000.0});
  q.slo.tpot_ms = pick(random, {10.0, 20.0, 50.0});
  if (index % 3 == 1) q.workload.rate = pick(random, {0.5, 2.0, 6.0});
  if (index % 3 == 2) q.workload.concurrency = pick(random, {4.0, 30.0});
  if (index % 3 != 0 && random.uniform() < 0.5) q.goal = Goal::fewest_gpus;
  return q;
}

}  // namespace

namespace {

void check_pruning(Question q) {
  const Answer pruned = recommend(q, judge_resources());
  q.prune = false;
  const Answer all = recommend(q, judge_resources());
  CHECK(all.counts.beaten + all.counts.implied == 0);
  CHECK(pruned.counts.simulated + pruned.counts.beaten + pruned.counts.implied == all.counts.simulated);
  REQUIRE(pruned.plans.size() == all.plans.size());
  for (size_t p = 0; p < all.plans.size(); ++p)
    CHECK(models::to_json(pruned.plans[p].plan) == models::to_json(all.plans[p].plan));
}

}  // namespace

TEST_CASE("what pruning leaves out can't win: the same plans as with every candidate simulated") {
  for (int i = 0; i < kQuestions; ++i) {
    CAPTURE(i);
    check_pruning(random_question(i));
  }
}

TEST_CASE("nor do the orders among plans with prefill apart leave out what wins") {
  for (int i = 0; i < kQuestions; ++i) {
    CAPTURE(i);
    core::Random random(77, static_cast<uint64_t>(i));
    Question q = random_question(3 * i);  // as much as it can
    q.model = pick(random, {"Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B", "meta-llama/Llama-3.1-8B"});
    q.mode = ModeChoice::disagg;
    q.gpus = 4;
    q.workload.osl = pick(random, {50, 200, 600});
    q.slo.ttft_ms = pick(random, {200.0, 500.0, 1000.0});
    q.slo.percentile = pick(random, {90.0, 95.0, 99.0});
    check_pruning(q);
  }
}

// Here a plan of a smaller batch is given up although two of bigger ones meet the targets and the last is third best.
TEST_CASE("a plan that just misses says nothing of bigger batches") {
  Question q;
  q.model = "meta-llama/Llama-3.1-8B";
  q.system = "h100_sxm";
  q.backend = models::Backend::vllm;
  q.gpus = 4;
  q.top = 3;
  q.workload.isl = 300;
  q.workload.osl = 600;
  q.slo.ttft_ms = 200;
  q.slo.tpot_ms = 25;
  q.slo.percentile = 95;
  check_pruning(q);
}

TEST_CASE(
    "no simulated candidate is cheaper than its bound, and none that was said to be impossible meets its targets") {
  for (int i = 0; i < kQuestions; i += 2) {
    CAPTURE(i);
    Question q = random_question(i);
    q.prune = false;
    const Pricing pricing = price_candidates(q, judge_resources());
    for (const Trial& t : judge(q, pricing.priced, judge_resources())) {
      CHECK(t.tried);
      CHECK_FALSE((t.impossible && t.meets));
      if (t.meets) CHECK(t.cost >= t.least_cost);
    }
  }
}

TEST_CASE("of plans that cost alike the one of which more is known is ranked first") {
  // The lower quartile of a normal distribution is 0.6745 / 1.2816 of the way to its decile.
  CHECK(careful_cost({10, 5, 20}) == doctest::Approx(10 * std::pow(2.0, 0.5263)));
  CHECK(careful_cost({10, 10, 10}) == 10);
  CHECK(careful_cost({10, 9, 11.4}) < careful_cost({9.9, 6.6, 14.85}));  // 1 % cheaper, and three times as unsure
  CHECK(careful_cost({10, 9, 11.4}) > careful_cost({7.5, 5, 11.25}));
}

TEST_CASE("a prediction with prefill and decode apart says that it is less sure") {
  Resources resources;
  models::Plan plan;
  plan.model = "Qwen/Qwen3-32B", plan.precision = "fp8", plan.backend = models::Backend::vllm;
  plan.workload.isl = 1000, plan.workload.osl = 100, plan.workload.concurrency = 16;
  models::Pool pool;
  pool.system = "h200_sxm", pool.max_batch = 16, pool.max_tokens = 8192;
  plan.pools = {pool};
  const auto together = predict(plan, resources);
  pool.role = models::Role::prefill;
  plan.pools = {pool, pool};
  plan.pools[1].role = models::Role::decode;
  plan.mode = models::Mode::disagg;
  for (const Method method : {Method::simulate, Method::analytic}) {
    const auto apart = predict(plan, resources, Fit::required, method);
    REQUIRE((together && apart));
    const auto width = [](const core::Figure& f) { return std::log(f.high / f.value); };
    CHECK(width(apart->ttft_ms) > 1.5 * width(together->ttft_ms));
    CHECK(width(apart->tpot_ms) > 1.5 * width(together->tpot_ms));
    CHECK(width(apart->tokens_per_s_per_gpu) > 1.5 * width(together->tokens_per_s_per_gpu));
  }
}
