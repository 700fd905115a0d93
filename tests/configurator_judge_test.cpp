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

TEST_CASE("what pruning leaves out can't win: the same plans as with every candidate simulated") {
  for (int i = 0; i < kQuestions; ++i) {
    CAPTURE(i);
    Question q = random_question(i);
    const Answer pruned = recommend(q, judge_resources());
    q.prune = false;
    const Answer all = recommend(q, judge_resources());
    CHECK(all.counts.beaten + all.counts.implied == 0);
    CHECK(pruned.counts.simulated + pruned.counts.beaten + pruned.counts.implied == all.counts.simulated);
    REQUIRE(pruned.plans.size() == all.plans.size());
    for (size_t p = 0; p < all.plans.size(); ++p)
      CHECK(models::to_json(pruned.plans[p].plan) == models::to_json(all.plans[p].plan));
  }
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
