#include <doctest/doctest.h>

#include "models/catalogue.h"
#include "simulator/cluster.h"
#include "simulator/serving.h"
#include "tests/effort.h"
#include "tests/simulator_bed.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

scheduler::Policy any_policy(core::Random& random) {
  const int64_t tokens = random.integer(64, 600), sequences = random.integer(1, 24);
  scheduler::Policy p;
  switch (random.integer(0, 3)) {
    case 0:
      p = scheduler::vllm(tokens, sequences);
      break;
    case 1:
      p = scheduler::sglang(tokens, sequences);
      break;
    default:
      p = scheduler::trtllm(tokens, sequences, random.uniform() < 0.5, random.uniform() < 0.5);
  }
  if (random.uniform() < 0.3) p.preemption = scheduler::Preemption::swap;
  if (random.uniform() < 0.3) p.order = scheduler::Order::priority;
  if (random.uniform() < 0.3) p.watermark = 0.05;
  if (random.uniform() < 0.25) p.wait_steps = random.integer(1, 30), p.wait_share = 0.7;
  if (random.uniform() < 0.25) p.poll_steps = random.integer(2, 30);
  if (random.uniform() < 0.25) p.balance_steps = random.integer(2, 40), p.balance_wait = random.integer(0, 3);
  if (random.uniform() < 0.2) p.decode_tokens = 4, p.decode_growth = 1 + 2 * random.uniform();
  return p;
}

std::unique_ptr<Load> any_load(core::Random& random, bool hashes) {
  const auto lengths = LengthDistribution::uniform({1, random.integer(10, 600)}, {1, random.integer(1, 200)});
  PrefixSharing prefix;
  if (hashes) prefix = {random.uniform() * 0.9, 16};
  if (random.uniform() < 0.4) {
    ClosedLoopOptions o;
    o.concurrency = random.integer(1, 40);
    o.prompts = random.integer(40, 120);
    o.warmup = random.integer(0, 10);
    o.lengths = lengths;
    o.gap_us = 5000;
    o.uniform_gap = true;
    o.ramp_us = 1e4 * std::sqrt(2.0);  // no two workers in step, where rounding would decide who is first
    o.prefix = prefix;
    o.seed = random.next();
    return make_closed_loop(o);
  }
  OpenOptions o;
  o.rate.per_s = std::exp(random.uniform() * 5);
  o.burstiness = random.uniform() < 0.5 ? 1 : 0.2;
  o.requests = random.integer(40, 120);
  o.lengths = lengths;
  o.prefix = prefix;
  o.seed = random.next();
  return make_open_load(o);
}

struct Case {
  ClusterSpec spec;
  std::unique_ptr<Load> first, second;
  int priorities = 1;
};

// Two pools in one of three, few KV blocks, and now and then failures.
Case any_case(uint64_t seed, StepPrice& price, int most_ranks = 4) {
  core::Random random(seed);
  Case c;
  const bool apart = random.uniform() < 0.33, hashes = random.uniform() < 0.4;
  for (const Stage stage : apart ? std::vector{Stage::prefill, Stage::decode} : std::vector{Stage::whole}) {
    PoolSpec p = pool_of(stage, any_policy(random), price, static_cast<int>(random.integer(1, 3)),
                         random.integer(30, 150), static_cast<int>(random.integer(1, most_ranks)));
    p.policy.prefix_cache = hashes && stage != Stage::decode;
    c.spec.pools.push_back(p);
  }
  c.spec.router.policy = static_cast<scheduler::RouterPolicy>(random.integer(0, 3));
  c.spec.router.seed = random.next();
  c.spec.transfer = {50, 2, 1, random.uniform()};
  if (random.uniform() < 0.3) c.spec.local_prefill_tokens = random.integer(1, 200);
  for (int i = 0; random.uniform() < 0.4 && i < 4; ++i) {
    const int pool = static_cast<int>(random.integer(0, static_cast<int64_t>(c.spec.pools.size()) - 1));
    Failure f{random.uniform() < 0.7 ? Failure::Kind::dies : Failure::Kind::slows,
              pool,
              static_cast<int>(random.integer(0, c.spec.pools[static_cast<size_t>(pool)].replicas - 1)),
              random.uniform() * 2e6,
              random.uniform() < 0.8 ? random.uniform() * 1e6 : kNever,
              1 + random.uniform()};
    c.spec.failures.push_back(f);
  }
  c.spec.detection_us = 1e5 * random.uniform();
  c.priorities = random.uniform() < 0.5 ? 3 : 1;
  const uint64_t load_seed = random.next();
  core::Random a(load_seed), b(load_seed);
  c.first = any_load(a, hashes);
  c.second = any_load(b, hashes);
  return c;
}

// Both ways add up the same step times, in another order: 1e-9 of the time leaves room for 1e5 roundings of 1e-16.
bool near(double a, double b) { return std::abs(a - b) <= 1e-9 * std::max(std::abs(a), std::abs(b)) + 1e-6; }

void check_same(const RequestRecord& a, const RequestRecord& b) {
  CHECK(near(a.arrival_us, b.arrival_us));
  CHECK(near(a.started_us, b.started_us));
  CHECK(near(a.first_us, b.first_us));
  CHECK(near(a.last_us, b.last_us));
  CHECK(a.cached_tokens == b.cached_tokens);
  CHECK(a.worker == b.worker);
  CHECK(a.migrations == b.migrations);
  CHECK(a.lost == b.lost);
  CHECK(a.rejected == b.rejected);
}

void check_same(const ClusterTotals& a, const ClusterTotals& b) {
  CHECK(a.steps == b.steps);
  CHECK(a.counters.preemptions == b.counters.preemptions);
  CHECK(a.counters.prompt_tokens == b.counters.prompt_tokens);
  CHECK(a.counters.cached_tokens == b.counters.cached_tokens);
  CHECK(a.counters.computed_tokens == b.counters.computed_tokens);
  CHECK(a.replayed_tokens == b.replayed_tokens);
  CHECK(a.lost == b.lost);
  CHECK(a.unfinished == b.unfinished);
  CHECK(near(a.tokens_at_last_arrival, b.tokens_at_last_arrival));
}

// Each request ends once, in order of its times; without failures none is lost.
void check_whole(const Journal& j, const ClusterTotals& t) {
  CHECK(static_cast<int64_t>(j.records.size()) + t.unfinished == j.taken);
  for (const auto& [tag, times] : j.ends) CHECK(times == 1);
  for (const auto& [tag, r] : j.records) {
    CHECK(r.last_us >= r.arrival_us);
    if (r.lost || r.rejected) continue;
    CHECK(r.started_us >= r.arrival_us);
    CHECK(r.first_us >= r.started_us);
    CHECK(r.last_us >= r.first_us);
  }
}

void compare(Case& c) {
  Journal exact(std::move(c.first)), quick(std::move(c.second));
  exact.priorities = quick.priorities = c.priorities;
  c.spec.exact = true;
  const ClusterTotals a = Cluster(c.spec).run(exact, exact);
  c.spec.exact = false;
  Cluster cluster(c.spec);
  const ClusterTotals b = cluster.run(quick, quick);
  for (size_t pool = 0; b.unfinished == 0 && pool < c.spec.pools.size(); ++pool) {
    const PoolState state = cluster.state(static_cast<int>(pool));
    CHECK(state.running + state.waiting == 0);
    CHECK(state.kv_share == 0);  // all blocks are free or cached
  }
  REQUIRE(exact.records.size() == quick.records.size());
  for (const auto& [tag, record] : exact.records) check_same(record, quick.records.at(tag));
  check_same(a, b);
  check_whole(quick, b);
  if (!c.spec.failures.empty()) return;
  CHECK(b.lost == 0);
  CHECK(b.unfinished == 0);
}

}  // namespace

TEST_CASE("runs of equal steps are as good as every step by itself") {
  for (uint64_t seed = 1; seed <= 300 / drydock::tests::kLighter; ++seed) {
    CAPTURE(seed);
    KinkedPrice price;
    Case c = any_case(seed, price);
    compare(c);
  }
}

TEST_CASE("so they are with many attention-DP ranks, most of which coast") {
  for (uint64_t seed = 1; seed <= 100 / drydock::tests::kLighter; ++seed) {
    CAPTURE(seed);
    KinkedPrice price;
    Case c = any_case(seed + 2000, price, 64);
    compare(c);
  }
}

TEST_CASE("so they are with a model's step times") {
  const auto architecture = models::find_model("deepseek-ai/DeepSeek-R1");
  const auto system = models::find_system("h200_sxm");
  const perfdb::KernelTimes times(system.hardware);
  const BackendModel backend;
  for (const models::Parallelism& p : {models::Parallelism{8, 1, 1, 1, 8}, models::Parallelism{1, 1, 8, 1, 8},
                                       models::Parallelism{1, 1, 32, 1, 32}, models::Parallelism{1, 2, 16, 1, 16}}) {
    const Engine engine(architecture, models::choose_precision(architecture, "fp8"), p, system, times, backend, 8192);
    const auto lease = engine.lease_price();
    for (uint64_t seed = 1; seed <= 30 / drydock::tests::kLighter; ++seed) {
      CAPTURE(seed);
      Case c = any_case(seed + 1000, lease.price(), 1);
      for (PoolSpec& pool : c.spec.pools) pool.ranks = engine.ranks();
      compare(c);
    }
  }
}

TEST_CASE("every token is made once, and Little's law holds") {
  for (uint64_t seed = 1; seed <= 100 / drydock::tests::kLighter; ++seed) {
    CAPTURE(seed);
    KinkedPrice price;
    Case c = any_case(seed, price);
    c.spec.failures.clear();
    for (PoolSpec& p : c.spec.pools) p.policy.decode_growth = 1, p.kv_blocks = 200;  // 800 tokens always fit
    Journal j(std::move(c.first));
    const ClusterTotals t = Cluster(c.spec).run(j, j);
    REQUIRE(t.unfinished + t.rejected == 0);
    // Decode makes all tokens but each request's first; one more is made by a prompt for each recomputed request, and
    // pulled KV brings its first token with it. Without preemption the count is exact.
    if (t.counters.preemptions == 0) CHECK(j.made == doctest::Approx(static_cast<double>(j.output_tokens - j.taken)));
    // Time integral of the number in the system, by +1 and -1 at each arrival and end, is the sum of the latencies.
    std::vector<std::pair<double, int>> changes;
    double latencies = 0, area = 0, number = 0, before = 0;
    for (const auto& [tag, r] : j.records) {
      changes.push_back({r.arrival_us, 1});
      changes.push_back({r.last_us, -1});
      latencies += r.last_us - r.arrival_us;
    }
    std::sort(changes.begin(), changes.end());
    for (const auto& [at, change] : changes) area += number * (at - before), before = at, number += change;
    CHECK(number == 0);
    CHECK(area == doctest::Approx(latencies));
    CHECK(t.end_us >= before);  // a finished sequence may linger for a step
    CHECK(j.computed == t.counters.computed_tokens);
  }
}

TEST_CASE("the same seed gives the same bits") {
  const auto run = [](uint64_t seed) {
    KinkedPrice price;
    Case c = any_case(seed, price);
    Journal j(std::move(c.first));
    const ClusterTotals t = Cluster(c.spec).run(j, j);
    std::vector<double> out{t.end_us, static_cast<double>(t.events)};
    for (const auto& [tag, r] : j.records) out.insert(out.end(), {r.arrival_us, r.first_us, r.last_us});
    return out;
  };
  for (uint64_t seed = 1; seed <= 20; ++seed) CHECK(run(seed) == run(seed));
}

namespace {

// Prefill of 1000 + 3 n us for n tokens, a transfer of 50 + 2 n + n / 16 us, steps of decode of 1000 us and more.
struct Apart {
  KinkedPrice price;
  ClusterSpec spec;
  explicit Apart(int64_t prefill_blocks = 1000, int64_t decode_blocks = 1000) {
    price.sequence_us = price.context_us = 0;
    spec.pools = {pool_of(Stage::prefill, scheduler::vllm(1000, 64), price, 1, prefill_blocks),
                  pool_of(Stage::decode, scheduler::vllm(1000, 64), price, 1, decode_blocks)};
    spec.transfer = {50, 2, 1, 0};
  }
  std::map<int64_t, RequestRecord> serve(std::vector<Arrival> arrivals) {
    Journal j(std::make_unique<ListLoad>(std::move(arrivals)));
    Cluster cluster(spec);
    totals = cluster.run(j, j);
    CHECK(totals.unfinished == 0);
    for (int pool = 0; pool < 2; ++pool) CHECK(cluster.state(pool).kv_share == 0);
    return j.records;
  }
  ClusterTotals totals;
};

}  // namespace

TEST_CASE("the first token comes with the KV, and transfers take turns") {
  Apart apart;
  const auto r = apart.serve({ask(0, 160, 3), ask(0, 160, 1)});
  // The first prompt starts at once and alone: 1480 us. The second one then takes as long. Transfer: 320 us on the
  // wire, 10 blocks and 50 us.
  CHECK(r.at(0).first_us == doctest::Approx(1480 + 320 + 60));
  CHECK(r.at(0).last_us == doctest::Approx(1480 + 380 + 2000));
  // The second one's KV is asked for when decode's step under way at 2960 is over.
  CHECK(r.at(1).first_us == doctest::Approx(3860 + 380));
  CHECK(r.at(1).last_us == r.at(1).first_us);
  const auto both = apart.serve({ask(0, 16, 1), ask(1, 160, 2), ask(2, 160, 2)});
  // The second and third prompt end together, at 1048 + 1960; the third one's KV waits for the wire.
  CHECK(both.at(1).first_us == doctest::Approx(3008 + 380));
  CHECK(both.at(2).first_us == doctest::Approx(3008 + 320 + 380));
}

TEST_CASE("a full decode pool holds prefill up") {
  Apart apart(12, 12);  // blocks of 16 tokens: one prompt of 160 at a time and its output on either side
  const auto r = apart.serve({ask(0, 160, 20), ask(0, 160, 20), ask(0, 160, 20)});
  CHECK(r.at(1).first_us > r.at(0).last_us);  // decode has no room before
  CHECK(r.at(2).first_us > r.at(1).last_us);
  CHECK(r.at(1).started_us >= r.at(0).first_us);  // prefill keeps the KV until it is fetched
  CHECK(r.at(2).started_us >= r.at(1).first_us);
  CHECK(apart.totals.counters.preemptions == 0);
}

TEST_CASE("short prompts are computed by the decode pool") {
  Apart apart;
  apart.spec.local_prefill_tokens = 100;
  const auto r = apart.serve({ask(0, 99, 2), ask(1e6, 100, 2)});
  CHECK(r.at(0).first_us == doctest::Approx(1000 + 297));
  CHECK(r.at(1).first_us - 1e6 == doctest::Approx(1300 + 50 + 200 + 6.25));
  CHECK(apart.totals.busy_us[0] == doctest::Approx(1300));
}

TEST_CASE("what can never fit is rejected on either side, and the rest goes on") {
  Apart apart(20, 12);
  const auto r = apart.serve({ask(0, 400, 2), ask(1, 160, 100), ask(2, 160, 10), ask(3, 160, 10)});
  CHECK(r.at(0).rejected);  // 400 tokens in 320
  CHECK(r.at(1).rejected);  // 260 tokens in 192, known after its prompt
  CHECK(r.at(1).started_us >= 0);
  CHECK(!r.at(2).rejected);
  CHECK(!r.at(3).rejected);
  CHECK(apart.totals.rejected == 2);
}

TEST_CASE("pipeline stages: the first token leaves the last stage later, and KV with it") {
  Apart apart;
  apart.price.drain = 700;
  const auto r = apart.serve({ask(0, 160, 2)});
  CHECK(r.at(0).first_us == doctest::Approx(1480 + 700 + 380));
  apart.spec.local_prefill_tokens = 1000;
  const auto local = apart.serve({ask(0, 160, 1), ask(1e6, 160, 3)});
  CHECK(local.at(0).last_us == doctest::Approx(1480 + 700));
  CHECK(local.at(1).first_us - 1e6 == doctest::Approx(1480 + 700));
}

TEST_CASE("balanced ranks start prompts together, or at the timer") {
  KinkedPrice price;
  scheduler::Policy policy = scheduler::trtllm(1000, 8);
  policy.balance_steps = 10;
  const auto started = [&](std::vector<Arrival> arrivals) {
    ClusterSpec spec;
    spec.pools.push_back(pool_of(Stage::whole, policy, price, 1, 10'000, 2));
    Journal journal(std::make_unique<ListLoad>(std::move(arrivals)));
    Cluster(spec).run(journal, journal);
    std::vector<double> out;
    for (const auto& [tag, r] : journal.records) out.push_back(r.started_us);
    return out;
  };
  const std::vector<Arrival> decoding = {ask(0, 10, 100), ask(0, 10, 100)};
  // Steps take 1.01 to 1.1 ms. Rank 1 began in step 1, so that the timer lets prompts in at steps 11, 21, 31; a prompt
  // that comes in step 12 waits for 8 or 9 of them.
  auto lone = decoding;
  lone.push_back(ask(13e3, 10, 5));
  CHECK(started(lone)[2] - 13e3 > 7e3);
  CHECK(started(lone)[2] - 13e3 < 10.5e3);
  auto both = lone;
  both.push_back(ask(15e3, 10, 5));
  const auto at = started(both);
  CHECK(at[2] == at[3]);
  CHECK(at[3] - 15e3 < 1.2e3);
  policy.balance_wait = 3;  // more steps for more of them
  CHECK(started(both)[3] - 15e3 > 3e3);
  CHECK(started(both)[3] - 15e3 < 4.5e3);
}
