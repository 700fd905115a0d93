#include <doctest/doctest.h>

#include <set>

#include "configurator/candidates.h"
#include "configurator/judge.h"
#include "configurator/predict.h"
#include "configurator/search.h"
#include "configurator/space.h"
#include "core/error.h"
#include "tests/effort.h"

using namespace drydock;
using namespace drydock::configurator;

namespace {

Resources& search_resources() {
  static Resources shared;
  return shared;
}

Question question(const char* model = "Qwen/Qwen3-32B", int gpus = 8) {
  Question q;
  q.model = model;
  q.precision = "fp8";
  q.system = "h200_sxm";
  q.gpus = gpus;
  q.backend = models::Backend::trtllm;
  q.workload.isl = 2000;
  q.workload.osl = 500;
  q.slo.ttft_ms = 1000;
  q.slo.tpot_ms = 25;
  return q;
}

void check_consistent(const Question& q, const Answer& a) {
  const Counts& c = a.counts;
  CHECK(c.enumerated == c.illegal + c.out_of_memory + c.overloaded + c.priced);
  int64_t with_reason = 0;
  for (const auto& [reason, n] : c.reasons) with_reason += n;
  CHECK(with_reason == c.illegal + c.out_of_memory + c.overloaded);
  CHECK(static_cast<int>(a.plans.size()) <= q.top);
  for (const Ranked& r : a.plans) {
    CHECK(r.meets_slo);
    CHECK(r.plan.gpus() <= q.gpus);
    CHECK(r.plan.gpus() >= 1);
    const auto precision = deployed_precision(search_resources().model(q.model), q.precision, q.kv_precision,
                                              r.plan.backend, search_resources().system(q.system).hardware);
    for (const models::Pool& pool : r.plan.pools) {
      CHECK(!models::why_illegal(search_resources().model(q.model), precision, pool.parallelism));
      CHECK(!models::why_not_on(r.plan.backend, pool.parallelism, 8));
    }
    const models::Prediction& p = *r.plan.prediction;
    if (q.slo.ttft_ms) CHECK(p.ttft_ms.value <= *q.slo.ttft_ms);
    if (q.slo.tpot_ms) CHECK(p.tpot_ms.value <= *q.slo.tpot_ms);
    for (const core::Figure* f : {&p.ttft_ms, &p.tpot_ms, &p.tokens_per_s_per_gpu, &p.gpu_hours_per_million_tokens})
      CHECK((0 < f->low && f->low <= f->value && f->value <= f->high));
  }
}

}  // namespace

TEST_CASE("plans are legal, within the GPUs and the targets, best first, each of another shape; counts add up") {
  for (const char* model : {"Qwen/Qwen3-32B", "gpt-oss-120b", "Qwen/Qwen3-30B-A3B"})
    for (const int gpus : {1, 4, 16}) {
      if (gpus > 4 && drydock::tests::kLighter > 1) continue;
      CAPTURE(model);
      CAPTURE(gpus);
      Question q = question(model, gpus);
      const Answer a = recommend(q, search_resources());
      check_consistent(q, a);
      REQUIRE(!a.plans.empty());
      double before = 0;
      std::set<std::string> shapes;
      for (const Ranked& r : a.plans) {
        CHECK(careful_cost(r.plan.prediction->gpu_hours_per_million_tokens) >= before);
        before = careful_cost(r.plan.prediction->gpu_hours_per_million_tokens);
        std::string shape{models::name(r.plan.backend)};
        for (const models::Pool& pool : r.plan.pools)
          shape += "/" + std::to_string(pool.parallelism.tp) + "." + std::to_string(pool.parallelism.pp) + "." +
                   std::to_string(pool.parallelism.attention_dp) + "." + std::to_string(pool.parallelism.ep);
        CHECK(shapes.insert(shape).second);
      }
    }
}

TEST_CASE("what the search says of a plan, the plan alone says again") {
  // The KV format depends on the backend, so each backend has its turn.
  for (const models::Backend backend : {models::Backend::trtllm, models::Backend::vllm, models::Backend::sglang})
    for (const ModeChoice mode : {ModeChoice::agg, ModeChoice::disagg}) {
      CAPTURE(models::name(backend));
      Question q = question();
      q.backend = backend;
      q.mode = mode;
      q.slo = {};
      const Answer a = recommend(q, search_resources());
      REQUIRE(!a.plans.empty());
      const models::Plan& plan = a.plans.front().plan;
      CHECK(plan.backend == backend);
      const auto again = predict(models::parse_plan(models::to_json(plan), "plan"), search_resources());
      REQUIRE(again);
      CHECK(again->ttft_ms.value == doctest::Approx(plan.prediction->ttft_ms.value).epsilon(1e-9));
      CHECK(again->tokens_per_s_per_gpu.value ==
            doctest::Approx(plan.prediction->tokens_per_s_per_gpu.value).epsilon(1e-9));
    }
}

TEST_CASE("modes are kept apart") {
  Question q = question();
  q.mode = ModeChoice::agg;
  for (const Ranked& r : recommend(q, search_resources()).plans) CHECK(r.plan.mode == models::Mode::agg);
  q.mode = ModeChoice::disagg;
  for (const Ranked& r : recommend(q, search_resources()).plans) CHECK(r.plan.pools.size() == 2);
}

TEST_CASE("the same question gets the same answer, whichever thread was faster") {
  const Question q = question("gpt-oss-120b", drydock::tests::kLighter > 1 ? 2 : 8);
  const Answer a = recommend(q, search_resources()), b = recommend(q, search_resources());
  REQUIRE(a.plans.size() == b.plans.size());
  for (size_t i = 0; i < a.plans.size(); ++i)
    CHECK(models::to_json(a.plans[i].plan) == models::to_json(b.plans[i].plan));
  CHECK(a.counts.priced == b.counts.priced);
}

TEST_CASE("no point of the Pareto front beats another, and none that was priced beats one of it") {
  const Question q = question();
  const Answer a = recommend(q, search_resources());
  REQUIRE(a.pareto.size() > 3);
  for (const Priced& priced : price_candidates(q, search_resources()).priced) {
    int gpus = 0;
    for (const models::Pool& pool : priced.pools) gpus += pool.gpus();
    const models::Prediction p = prediction_of(priced.served, q.workload, gpus, std::nullopt);
    for (const Ranked& r : a.pareto)
      CHECK_FALSE((p.tokens_per_s_per_user.value > r.plan.prediction->tokens_per_s_per_user.value &&
                   p.tokens_per_s_per_gpu.value > r.plan.prediction->tokens_per_s_per_gpu.value));
  }
  for (size_t i = 1; i < a.pareto.size(); ++i) {
    CHECK(a.pareto[i].plan.prediction->tokens_per_s_per_user.value >
          a.pareto[i - 1].plan.prediction->tokens_per_s_per_user.value);
    CHECK(a.pareto[i].plan.prediction->tokens_per_s_per_gpu.value <
          a.pareto[i - 1].plan.prediction->tokens_per_s_per_gpu.value);
  }
}

TEST_CASE("whatever is priced is legal, within the GPUs, and has limits; worker counts need not be powers of two") {
  for (const char* model : {"Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B"}) {
    Question q = question(model, 12);
    q.workload.concurrency = 100;
    const Pricing pricing = price_candidates(q, search_resources());
    CHECK(pricing.counts.priced == static_cast<int64_t>(pricing.priced.size()));
    const auto precision = deployed_precision(search_resources().model(model), q.precision, q.kv_precision,
                                              models::Backend::trtllm, search_resources().system(q.system).hardware);
    bool three = false;
    for (const Priced& priced : pricing.priced) {
      int gpus = 0;
      REQUIRE(priced.pools.size() == (priced.mode == models::Mode::agg ? 1 : 2));
      for (const models::Pool& pool : priced.pools) {
        gpus += pool.gpus();
        three = three || pool.replicas == 3;
        REQUIRE(!models::why_illegal(search_resources().model(model), precision, pool.parallelism));
        REQUIRE(pool.replicas >= 1);
        REQUIRE(pool.max_batch >= 1);
        REQUIRE(pool.max_tokens >= 1);
        REQUIRE(pool.kv_blocks >= 1);
      }
      REQUIRE(gpus <= q.gpus);
    }
    CHECK(three);
  }
}

TEST_CASE("when nothing meets the targets the nearest plans are told, and which target binds") {
  Question q = question();
  q.slo.tpot_ms = 0.01;
  const Answer a = recommend(q, search_resources());
  CHECK(a.plans.empty());
  CHECK(a.counts.meeting_slo == 0);
  REQUIRE(a.nearest.size() == 3);
  CHECK(a.nearest.front().binding == "tpot");
  CHECK(a.nearest.front().tightness > 1);
}

TEST_CASE("a higher rate never takes fewer GPUs, and the rate is served") {
  Question q = question("Qwen/Qwen3-32B", 64);
  q.goal = Goal::fewest_gpus;
  int before = 0;
  for (const double rate : {1.0, 10.0, 40.0}) {
    q.workload.rate = rate;
    const Answer a = recommend(q, search_resources());
    check_consistent(q, a);
    REQUIRE(!a.plans.empty());
    CHECK(a.plans.front().plan.gpus() >= before);
    CHECK(a.plans.front().plan.prediction->requests_per_s.value == doctest::Approx(rate));
    before = a.plans.front().plan.gpus();
  }
}

TEST_CASE("a tighter target never gives more throughput") {
  Question q = question();
  double before = 1e9;
  for (const double tpot : {60.0, 20.0, 10.0}) {
    q.slo.tpot_ms = tpot;
    const Answer a = recommend(q, search_resources());
    REQUIRE(!a.plans.empty());
    CHECK(a.plans.front().plan.prediction->tokens_per_s_per_gpu.value <= before * (1 + 1e-9));
    before = a.plans.front().plan.prediction->tokens_per_s_per_gpu.value;
  }
}

TEST_CASE("prefill and decode may run on different systems, and a price ranks by cost") {
  Question q = question("Qwen/Qwen3-32B", 12);
  q.mode = ModeChoice::disagg;
  q.decode_system = "h100_sxm";
  Resources own;
  own.set_price("h200_sxm", 4);
  own.set_price("h100_sxm", 2);
  const Answer a = recommend(q, own);
  REQUIRE(a.plans.size() > 1);
  double before = 0;
  for (const Ranked& r : a.plans) {
    CHECK(r.plan.pools[0].system == "h200_sxm");
    CHECK(r.plan.pools[1].system == "h100_sxm");
    REQUIRE(r.plan.prediction->cost_per_million_tokens);
    CHECK(r.plan.prediction->cost_per_million_tokens->value >= before);
    before = r.plan.prediction->cost_per_million_tokens->value;
  }
}

TEST_CASE("a model too large for the GPUs is out of memory, not slow") {
  Question q = question("deepseek-ai/DeepSeek-R1", 2);
  const Answer a = recommend(q, search_resources());
  CHECK(a.counts.priced == 0);
  CHECK(a.counts.out_of_memory > 0);
  CHECK(a.plans.empty());
  CHECK(a.nearest.empty());
}

TEST_CASE("speculation makes tokens faster, and the plan says how") {
  Question q = question();
  q.mode = ModeChoice::agg;
  q.workload.concurrency = 8;
  q.slo = {};
  const Answer plain = recommend(q, search_resources());
  q.speculative = "eagle:k=3,p=0.8";
  const Answer fast = recommend(q, search_resources());
  REQUIRE(!fast.plans.empty());
  CHECK(fast.plans.front().plan.speculative == q.speculative);
  CHECK(fast.plans.front().plan.prediction->tpot_ms.value < plain.plans.front().plan.prediction->tpot_ms.value);
  CHECK(fast.pareto.back().plan.prediction->tpot_ms.value < plain.pareto.back().plan.prediction->tpot_ms.value);
  q.speculative = "mtp:k=1,p=0.8";
  CHECK_THROWS_WITH_AS(recommend(q, search_resources()),
                       "--speculative: Qwen/Qwen3-32B has no layers for multi-token prediction; want eagle, draft or "
                       "ngram in place of mtp",
                       core::Error);
}

TEST_CASE("the winner is the same whether or not what can't win is simulated, under speculation and skew") {
  Question q = question("Qwen/Qwen3-30B-A3B", 4);
  q.workload.concurrency = 16;
  q.speculative = "eagle:k=2,p=0.7";
  q.experts.skew = 0.8;
  const Answer pruned = recommend(q, search_resources());
  q.prune = false;
  const Answer all = recommend(q, search_resources());
  REQUIRE(!all.plans.empty());
  CHECK(pruned.counts.simulated < all.counts.simulated);
  CHECK(models::to_json(pruned.plans.front().plan) == models::to_json(all.plans.front().plan));
}

TEST_CASE("a context longer than the model's is refused") {
  Question q = question();
  q.workload.isl = 40'000;
  q.workload.osl = 2'000;
  CHECK_THROWS_WITH_AS(recommend(q, search_resources()),
                       "--isl 40000 and --osl 2000 are more than the context of Qwen/Qwen3-32B, 40960 tokens",
                       core::Error);
}

TEST_CASE("batches and parallel sizes cover what is asked") {
  CHECK(batches(1) == std::vector<int64_t>{1});
  CHECK(batches(12) == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 9, 11, 12});
  CHECK(batches(512).size() < 32);
  const auto& system = search_resources().system("h200_sxm");
  const auto dense = parallelisms(search_resources().model("Qwen/Qwen3-32B"), system, 4, 4);
  CHECK(dense.size() == 6);  // tp x pp of 1, 2 and 4 with at most 4 GPUs
  for (const models::Parallelism& p :
       parallelisms(search_resources().model("deepseek-ai/DeepSeek-R1"), system, 16, 16)) {
    CHECK(p.moe_tp * p.ep == p.tp * p.attention_dp);
    CHECK(p.gpus() <= 16);
    CHECK(p.tp <= 8);  // NVLink domain
  }
}

TEST_CASE("a power of two of GPUs is spread in powers of two, in order of TP, PP, attention DP and EP") {
  for (const char* model : {"Qwen/Qwen3-32B", "deepseek-ai/DeepSeek-R1"})
    for (const auto& [name, gpus] : {std::pair{"h200_sxm", 8}, {"h200_sxm", 16}, {"h200_sxm", 64}, {"gb200", 64}}) {
      const auto& architecture = search_resources().model(model);
      const auto& system = search_resources().system(name);
      const bool moe = has_experts(architecture);
      for (const int most : {gpus, gpus - 1}) {  // the pools of a disaggregated plan leave one to the other
        std::vector<models::Parallelism> want;
        for (int tp = 1; tp <= std::min(most, system.hardware.nvlink_domain); tp *= 2)
          for (int pp = 1; pp <= 16 && tp * pp <= most; pp *= 2)
            for (int dp = 1; tp * pp * dp <= most && (dp == 1 || moe); dp *= 2)
              for (int ep = 1; ep <= (moe ? tp * dp : 1); ep *= 2)
                want.push_back({tp, pp, dp, moe ? tp * dp / ep : 1, ep});
        CHECK(parallelisms(architecture, system, gpus, most) == want);
      }
    }
}

TEST_CASE("other numbers of GPUs get the sizes that divide them and that all find room on the nodes") {
  const auto& moe = search_resources().model("moonshotai/Kimi-K2-Instruct");  // 384 experts
  const auto sizes = [&](const char* system, int gpus) {
    std::set<int> out;
    for (const models::Parallelism& p : parallelisms(moe, search_resources().system(system), gpus, gpus))
      out.insert(p.gpus());
    return out;
  };
  CHECK(sizes("h200_sxm", 3) == std::set<int>{1, 2, 3});
  CHECK(sizes("h200_sxm", 6) == std::set<int>{1, 2, 3, 4, 6});
  CHECK(sizes("h200_sxm", 12) == std::set<int>{1, 2, 3, 4, 6, 8, 12});  // 6 and 6 on two nodes of 8
  CHECK(sizes("h200_sxm", 24) == std::set<int>{1, 2, 4, 8, 16, 24});    // 3, 6 and 12 would leave holes in nodes of 8
  CHECK(sizes("gb200", 72) == std::set<int>{1, 2, 4, 8, 12, 16, 24, 32, 36, 64, 72});  // whole trays of 4
  CHECK(sizes("h200_sxm", 10) == std::set<int>{1, 2, 4, 5, 8, 10});
  CHECK(sizes("h200_sxm", 20) == std::set<int>{1, 2, 4, 8, 16});  // not alike on three nodes

  bool pp3 = false, dp12 = false;
  for (const models::Parallelism& p : parallelisms(moe, search_resources().system("h200_sxm"), 24, 24)) {
    CHECK(p.moe_tp * p.ep == p.tp * p.attention_dp);
    CHECK(8 % p.tp == 0);  // no TP group across nodes
    CHECK(p.pp <= 16);
    pp3 |= p.tp == 8 && p.pp == 3;
    dp12 |= p.tp == 2 && p.attention_dp == 12 && p.ep == 24;
  }
  CHECK(pp3);
  CHECK(dp12);
}

TEST_CASE("six GPUs hold together what four of them do not") {
  Question q = question("moonshotai/Kimi-K2-Instruct", 6);  // 1.03 TB of weights
  q.system = "gb200";                                       // 199 GB each
  q.precision = "auto";
  q.slo = {};
  q.mode = ModeChoice::agg;
  q.method = Method::analytic;
  const Answer found = recommend(q, search_resources());
  REQUIRE(!found.plans.empty());
  CHECK(found.plans.front().plan.gpus() == 6);
}
