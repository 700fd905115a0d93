#include <doctest/doctest.h>

#include "simulator/cluster.h"
#include "tests/simulator_bed.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

// Blocks of 16 tokens: `shared` that all texts begin with, then some of `text` alone.
std::vector<uint64_t> hashes_of(uint64_t text, size_t shared, size_t own) {
  std::vector<uint64_t> out;
  for (size_t i = 0; i < shared + own; ++i) out.push_back(i < shared ? i + 1 : core::mix(text * 1000 + i));
  return out;
}

ClusterSpec cached_workers(int count, StepPrice& price) {
  ClusterSpec spec;
  PoolSpec pool = pool_of(Stage::whole, scheduler::vllm(8192, 64), price, count, 400);
  pool.policy.prefix_cache = true;
  spec.pools = {pool};
  spec.router.policy = scheduler::RouterPolicy::kv_aware;
  spec.router.block_tokens = pool.block_tokens;
  return spec;
}

}  // namespace

TEST_CASE("a KV-aware router counts as prefill what a worker must compute, not what it has") {
  KinkedPrice price;
  ClusterSpec spec = cached_workers(2, price);
  spec.router.prefill_load_scale = 3;
  const auto a = hashes_of(1, 10, 1), b = hashes_of(2, 10, 1), c = hashes_of(3, 10, 1);
  std::vector<Arrival> arrivals{ask(0, 176, 1), ask(1e5, 176, 1), ask(1e5 + 10, 176, 1)};
  arrivals[0].hashes = a, arrivals[1].hashes = b, arrivals[2].hashes = c;
  Journal j(std::make_unique<ListLoad>(arrivals));
  Cluster(spec).run(j, j);
  // The second one goes where the first one left 160 of its 176 tokens. For the third, in tokens, worker 0 costs
  // 3 (16 + 16) + 176 + 176 = 448 and worker 1 costs 3 x 176 + 176 = 704; with the second one's hit forgotten worker 0
  // would cost 928.
  CHECK(j.records.at(1).worker == 0);
  CHECK(j.records.at(2).worker == 0);
  CHECK(j.records.at(2).cached_tokens == 160);
}

TEST_CASE("on prompts with shared beginnings a KV-aware router beats taking turns, and prefill is prompts less hits") {
  struct Tally : Journal {
    using Journal::Journal;
    void done(const RequestRecord& r) override {
      ttft_us += r.first_us - r.arrival_us;
      hits += r.cached_tokens;
      Journal::done(r);
    }
    double ttft_us = 0;
    int64_t hits = 0;
  };
  const auto serve = [](scheduler::RouterPolicy policy) {
    KinkedPrice price;
    ClusterSpec spec = cached_workers(4, price);
    spec.router.policy = policy;
    SessionOptions o;
    o.sessions = 150;
    o.sessions_per_s = 20;
    o.mean_turns = 5;
    o.mean_think_us = 2e5;
    o.lengths = LengthDistribution::uniform({100, 400}, {20, 60});
    o.most_tokens = 3000;
    o.hash_tokens = 16;
    o.seed = 7;
    auto t = std::make_unique<Tally>(make_sessions(o));
    const ClusterTotals totals = Cluster(spec).run(*t, *t);
    CHECK(totals.unfinished + totals.rejected + totals.lost + totals.counters.preemptions == 0);
    CHECK(t->hits == totals.counters.cached_tokens);
    CHECK(t->computed == t->prompt_tokens - t->hits);
    CHECK(t->computed == totals.counters.computed_tokens);
    return t;
  };
  const auto aware = serve(scheduler::RouterPolicy::kv_aware), turns = serve(scheduler::RouterPolicy::round_robin);
  CHECK(aware->taken == turns->taken);
  CHECK(aware->hits > turns->hits);
  CHECK(aware->computed < turns->computed);
  CHECK(aware->ttft_us < turns->ttft_us);
}
