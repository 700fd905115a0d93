#include <doctest/doctest.h>

#include "simulator/cluster.h"
#include "tests/effort.h"
#include "tests/simulator_bed.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

// A prompt of n tokens takes 1000 + 3 n us, a step of decode 1000 us.
struct FailureBed {
  KinkedPrice price;
  ClusterSpec spec;
  ClusterTotals totals;
  std::vector<PoolState> states;

  explicit FailureBed(int replicas, bool apart = false) {
    price.sequence_us = price.context_us = 0;
    const auto policy = scheduler::vllm(1000, 8);
    if (apart)
      spec.pools = {pool_of(Stage::prefill, policy, price, replicas), pool_of(Stage::decode, policy, price, replicas)};
    else
      spec.pools = {pool_of(Stage::whole, policy, price, replicas)};
    spec.transfer = {50, 2, 1, 0};
    spec.router.policy = scheduler::RouterPolicy::round_robin;
    spec.detection_us = 5000;
  }
  void dies(int pool, int worker, double at_us, double restart_us = kNever) {
    spec.failures.push_back({Failure::Kind::dies, pool, worker, at_us, restart_us, 1});
  }
  std::map<int64_t, RequestRecord> serve(std::vector<Arrival> arrivals) {
    Journal j(std::make_unique<ListLoad>(std::move(arrivals)));
    Cluster cluster(spec);
    totals = cluster.run(j, j);
    for (const auto& [tag, times] : j.ends) CHECK(times == 1);
    CHECK(static_cast<int64_t>(j.records.size()) + totals.unfinished == j.taken);
    states.clear();
    for (size_t p = 0; p < spec.pools.size(); ++p) states.push_back(cluster.state(static_cast<int>(p)));
    if (totals.unfinished == 0)
      for (const PoolState& s : states) CHECK(s.kv_share + static_cast<double>(s.running + s.waiting) == 0);
    return j.records;
  }
};

}  // namespace

TEST_CASE("a request on a dead worker is replayed elsewhere with what it had") {
  FailureBed bed(2);
  bed.dies(0, 0, 5500);
  const auto r = bed.serve({ask(0, 100, 10)});
  // Prompt 1300 us; tokens at 1300, 2300 ... 5300: five of them, the sixth is lost with the step. Noticed at 10,500:
  // 105 tokens are replayed in 1315 us and make the sixth, four more steps follow.
  CHECK(r.at(0).first_us == doctest::Approx(1300));
  CHECK(r.at(0).last_us == doctest::Approx(10'500 + 1315 + 4000));
  CHECK(r.at(0).migrations == 1);
  CHECK(r.at(0).worker == 1);
  CHECK(bed.totals.replayed_tokens == 105);
  CHECK(bed.totals.tokens_at_last_arrival == 0);
}

TEST_CASE("a step that ends as the worker dies still counts") {
  FailureBed bed(2);
  bed.dies(0, 0, 5300);
  CHECK(bed.serve({ask(0, 100, 5)}).at(0).last_us == doctest::Approx(5300));  // its last token
  CHECK(bed.totals.migrations == 0);
  CHECK(bed.serve({ask(0, 100, 6)}).at(0).last_us == doctest::Approx(10'300 + 1315));
}

TEST_CASE("requests sent to a worker whose death nobody noticed wait for that") {
  FailureBed bed(2);
  bed.dies(0, 0, 500);
  const auto r = bed.serve({ask(1000, 100, 1), ask(2000, 100, 1), ask(6000, 100, 1)});
  CHECK(r.at(0).first_us == doctest::Approx(5500 + 1300));  // noticed at 5500
  CHECK(r.at(1).first_us == doctest::Approx(3300));
  CHECK(r.at(2).worker == 1);
  CHECK(bed.states[0].alive == 1);
  CHECK(bed.states[0].starting == 0);
}

TEST_CASE("past the limit a request is lost, once") {
  FailureBed bed(3);
  bed.spec.migration_limit = 1;
  bed.dies(0, 0, 5500);
  bed.dies(0, 1, 12'500);
  const auto r = bed.serve({ask(0, 100, 20)});
  CHECK(r.at(0).lost);
  CHECK(bed.totals.lost == 1);
  CHECK(r.at(0).last_us == doctest::Approx(17'500));
}

TEST_CASE("when all workers are gone for good the rest stays unanswered and the run ends") {
  FailureBed bed(2);
  bed.dies(0, 0, 500);
  bed.dies(0, 1, 600);
  bed.serve({ask(0, 100, 10), ask(10, 100, 10), ask(1e5, 100, 10)});
  CHECK(bed.totals.unfinished == 3);
  CHECK(bed.totals.lost == 0);
  SUBCASE("and a hook that brings no help does not keep it going") {
    KinkedPrice price;
    Journal j(std::make_unique<ListLoad>(std::vector{ask(0, 100, 10)}));
    Cluster cluster(bed.spec);
    int called = 0;
    cluster.every(1000, [&](double) { ++called; });
    CHECK(cluster.run(j, j).unfinished == 1);
    CHECK(called >= 1000);
  }
  SUBCASE("one that brings a worker does") {
    Journal j(std::make_unique<ListLoad>(std::vector{ask(0, 100, 10)}));
    Cluster cluster(bed.spec);
    cluster.every(50'000, [&](double) {
      if (cluster.state(0).alive + cluster.state(0).starting == 0) cluster.scale(0, 1, 2000);
    });
    CHECK(cluster.run(j, j).unfinished == 0);
    CHECK(j.records.at(0).last_us == doctest::Approx(52'000 + 1300 + 9000));
  }
}

TEST_CASE("hooks go on through long pauses") {
  FailureBed bed(1);
  Journal j(std::make_unique<ListLoad>(std::vector{ask(0, 100, 2), ask(1e7, 100, 2)}));
  Cluster cluster(bed.spec);
  int called = 0;
  cluster.every(1000, [&](double) { ++called; });
  CHECK(cluster.run(j, j).unfinished == 0);
  CHECK(called >= 10'000);
}

TEST_CASE("a worker that comes back serves again, and may die again") {
  FailureBed bed(1);
  bed.dies(0, 0, 5500, 20'000);
  bed.dies(0, 0, 6000, 1);  // it is dead already
  bed.dies(0, 0, 27'000, 8000);
  const auto r = bed.serve({ask(0, 100, 10)});
  // As above until 10,500; back at 25,500, where 105 tokens are replayed: the sixth comes at 26,815. Then it dies and
  // is back at 35,000: 106 tokens replayed, three more steps.
  CHECK(r.at(0).last_us == doctest::Approx(35'000 + 1318 + 3000));
  CHECK(r.at(0).migrations == 2);
  CHECK(bed.totals.worker_us[0] == doctest::Approx(5500 + 1500 + 4318));
  CHECK(bed.totals.counters.computed_tokens == 100 + 105 + 106);  // of all its lives
}

TEST_CASE("a slow worker is slow from the next step on, until it recovers") {
  FailureBed bed(1);
  bed.spec.failures.push_back({Failure::Kind::slows, 0, 0, 2500, 3000, 3});
  // Tokens at 1300, 2300, 3300 (under way), then 3000 us each: 6300 (under way at 5500), then 1000 again.
  CHECK(bed.serve({ask(0, 100, 6)}).at(0).last_us == doctest::Approx(3300 + 3000 + 2000));
}

TEST_CASE("a prefill worker dies with KV that nobody has fetched yet") {
  for (const double at_us : {500.0, 1400.0, 1600.0}) {  // in the prompt, in the transfer, at its end
    CAPTURE(at_us);
    FailureBed bed(2, true);
    bed.dies(0, 0, at_us);
    const auto r = bed.serve({ask(0, 100, 5)});
    // Prompt until 1300, KV until 1300 + 50 + 200 + 6.25. Later than that the death does no harm.
    const bool late = at_us > 1556.25;
    const double again = at_us + 5000;
    CHECK(r.at(0).first_us == doctest::Approx((late ? 0 : again) + 1556.25));
    CHECK(r.at(0).last_us == doctest::Approx(r.at(0).first_us + 4000));
    CHECK(r.at(0).migrations == (late ? 0 : 1));
  }
}

TEST_CASE("a decode worker dies while it pulls, or decodes, and prefill gets its blocks back") {
  for (const double at_us : {1400.0, 3000.0}) {
    CAPTURE(at_us);
    FailureBed bed(2, true);
    bed.dies(1, 0, at_us);
    const auto r = bed.serve({ask(0, 100, 5)});
    // Decoding it had tokens at 1556.25 and 2556.25: 102 tokens are computed again and make the third.
    const bool pulling = at_us < 1556;
    const double prompt = pulling ? 100 : 102, again = at_us + 5000 + 1000 + 3 * prompt + 50 + 2 * prompt + prompt / 16;
    CHECK(r.at(0).first_us == doctest::Approx(pulling ? again : 1556.25));
    CHECK(r.at(0).last_us == doctest::Approx(again + (pulling ? 4000 : 2000)));
  }
}

TEST_CASE("both sides of a transfer die, in either order") {
  for (const double decode_us : {1350.0, 1450.0})
    for (const double more : {0.0, 1e5}) {
      FailureBed bed(2, true);
      bed.dies(0, 0, 1400, more > 0 ? more : kNever);
      bed.dies(1, 0, decode_us, more > 0 ? more : kNever);
      const auto r = bed.serve({ask(0, 100, 5), ask(1000, 100, 5), ask(1360, 200, 5), ask(2000, 300, 5)});
      CHECK(bed.totals.unfinished == 0);
      CHECK(bed.totals.lost == 0);
      for (const auto& [tag, record] : r) CHECK(record.last_us < 1e5);
    }
}

TEST_CASE("KV of a dead prefill worker whose request found no decode worker") {
  FailureBed bed(1, true);
  bed.dies(1, 0, 100, 50'000);  // noticed at 5100: the KV then waits for it
  bed.spec.failures.push_back({Failure::Kind::dies, 0, 0, 8000, 10'000, 1});
  const auto r = bed.serve({ask(5200, 100, 5)});
  // Its prompt is there at 6500; the prefill worker dies at 8000, is missed at 13,000 and back at 18,000.
  CHECK(r.at(0).migrations == 1);
  CHECK(r.at(0).first_us == doctest::Approx(50'100 + 256.25));
  CHECK(bed.totals.counters.computed_tokens == 200);
}

TEST_CASE("workers are added after their start-up and drained before they go") {
  FailureBed bed(1);
  Journal j(std::make_unique<ListLoad>(std::vector{ask(0, 100, 100), ask(5000, 100, 100), ask(30'000, 100, 20)}));
  Cluster cluster(bed.spec);
  cluster.every(1000, [&](double now) {
    if (now == 1000) cluster.scale(0, 2, 2000);
    if (now == 4000) CHECK(cluster.state(0).alive == 2);
    if (now == 10'000) cluster.scale(0, 1, 2000);
    if (now == 20'000) CHECK(cluster.state(0).running == 2);
  });
  const ClusterTotals t = cluster.run(j, j);
  CHECK(j.records.at(1).worker == 1);
  CHECK(j.records.at(1).last_us == doctest::Approx(5000 + 1300 + 99'000));
  CHECK(j.records.at(2).worker == 0);
  CHECK(cluster.state(0).alive == 1);
  CHECK(t.unfinished == 0);
  // The first one to the end, the other from 3000 until it was drained at 105,300.
  CHECK(t.worker_us[0] == doctest::Approx(t.end_us + 105'300 - 3000));
}

TEST_CASE("a worker that dies while it drains is gone when that is noticed, and its requests move") {
  for (const double restart_us : {kNever, 20'000.0}) {
    FailureBed bed(2);
    bed.dies(0, 1, 12'000, restart_us);
    Journal j(std::make_unique<ListLoad>(std::vector{ask(0, 100, 50), ask(1, 100, 50)}));
    Cluster cluster(bed.spec);
    cluster.every(10'000, [&](double now) {
      if (now == 10'000) cluster.scale(0, 1, 0);
    });
    const ClusterTotals t = cluster.run(j, j);
    CHECK(t.unfinished + t.lost == 0);
    CHECK(j.records.at(1).worker == 0);
    CHECK(cluster.state(0).alive + cluster.state(0).starting == 1);
    CHECK(t.worker_us[0] == doctest::Approx(t.end_us + 12'000));
  }
}

TEST_CASE("a prefill worker that drains stays until its KV is fetched") {
  FailureBed bed(2, true);
  bed.spec.pools[1].kv_blocks = 8;  // one request at a time
  bed.spec.pools[1].replicas = 1;
  Journal j(std::make_unique<ListLoad>(std::vector{ask(0, 100, 20), ask(1, 100, 20)}));
  Cluster cluster(bed.spec);
  cluster.every(5000, [&](double now) {
    if (now == 5000) cluster.scale(0, 1, 0);
    if (now == 10'000) CHECK(cluster.state(0).alive == 2);
    if (now == 35'000) CHECK(cluster.state(0).alive == 1);
  });
  CHECK(cluster.run(j, j).unfinished == 0);
  CHECK(j.records.at(1).migrations == 0);
}

TEST_CASE("the run stops at its time limit") {
  FailureBed bed(1);
  Journal j(std::make_unique<ListLoad>(std::vector{ask(0, 100, 10), ask(50'000, 100, 10)}));
  Cluster cluster(bed.spec);
  const ClusterTotals t = cluster.run(j, j, 20'000);
  CHECK(j.records.size() == 1);
  CHECK(t.end_us <= 20'000);
}

TEST_CASE("workers that die, return, come and go at random: every request ends once and all blocks come back") {
  int64_t migrations = 0, lost = 0;
  for (uint64_t seed = 1; seed <= 300 / drydock::tests::kLighter; ++seed) {
    CAPTURE(seed);
    core::Random random(seed);
    FailureBed bed(2, seed % 2 == 0);
    bed.spec.migration_limit = static_cast<int>(random.integer(0, 3));
    bed.spec.router.policy = static_cast<scheduler::RouterPolicy>(random.integer(0, 3));
    for (PoolSpec& p : bed.spec.pools) {
      p.kv_blocks = 60;
      p.ranks = static_cast<int>(random.integer(1, 2));
      if (random.uniform() < 0.3) p.policy = scheduler::trtllm(600, 8, true, true);
    }
    bed.spec.local_prefill_tokens = random.integer(0, 60);
    const auto pools = static_cast<int64_t>(bed.spec.pools.size());
    for (int i = 0; i < 8; ++i)
      bed.dies(static_cast<int>(random.integer(0, pools - 1)), static_cast<int>(random.integer(0, 3)),
               random.uniform() * 1e6, random.uniform() < 0.9 ? random.uniform() * 1e5 : kNever);
    std::vector<Arrival> arrivals;
    double at_us = 0;
    for (int i = 0; i < 150; ++i)
      arrivals.push_back(ask(at_us += random.exponential(6000), random.integer(1, 500), random.integer(1, 100)));
    Journal j(std::make_unique<ListLoad>(arrivals));
    Cluster cluster(bed.spec);
    cluster.every(30'000, [&](double) {
      for (int p = 0; p < pools; ++p) cluster.scale(p, static_cast<int>(random.integer(1, 4)), random.uniform() * 5e4);
    });
    const ClusterTotals t = cluster.run(j, j);
    CHECK(t.unfinished == 0);
    CHECK(j.records.size() == arrivals.size());
    for (const auto& [tag, times] : j.ends) CHECK(times == 1);
    for (int p = 0; p < pools; ++p) {
      const PoolState s = cluster.state(p);
      CHECK(s.running + s.waiting == 0);
      CHECK(s.kv_share == 0);
    }
    migrations += t.migrations;
    lost += t.lost;
  }
  CHECK(migrations > 1000 / drydock::tests::kLighter);
  CHECK(lost > 50);
}
