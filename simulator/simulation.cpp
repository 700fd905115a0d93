#include "simulator/simulation.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace drydock::simulator {
namespace {

Stage stage_of(models::Role role) {
  return role == models::Role::prefill ? Stage::prefill : role == models::Role::decode ? Stage::decode : Stage::whole;
}

// KV tokens of a sequence while it is on a worker of the role.
double typical_context(const models::Workload& w, Stage stage) {
  const double mean = (w.shortest + w.longest) / 2, prompt = static_cast<double>(w.isl) * mean;
  return std::max(1.0, stage == Stage::prefill ? prompt : prompt + static_cast<double>(w.osl) * mean / 2);
}

// Share of its tokens that a deployment must serve while requests arrive, or else its queue may only be growing.
constexpr double kServedShare = 0.9;

// Whether later requests waited for admission much longer than earlier ones: from the second to the last quarter of the
// answers the mean wait grew by half and by more than a twentieth of a request's latency.
bool queue_grows(const std::vector<double>& waits, double latency) {
  const size_t quarter = waits.size() / 4;
  if (quarter == 0) return true;
  const auto mean = [&](size_t from) {
    double sum = 0;
    for (size_t i = from; i < from + quarter; ++i) sum += waits[i];
    return sum / static_cast<double>(quarter);
  };
  const double early = mean(quarter), late = mean(waits.size() - quarter);
  return late > 1.5 * early && late - early > latency / 20;
}

}  // namespace

ClusterSpec cluster_of(const Deployment& deployment, const models::Workload& workload, const Scenario& scenario,
                       std::vector<Engine::PriceLease>& leases) {
  ClusterSpec spec;
  const int64_t block_tokens = scenario.hash_tokens > 0 ? scenario.hash_tokens : models::kKvBlockTokens;
  for (const Part& part : deployment.parts) {
    leases.push_back(part.engine->lease_price());
    PoolSpec pool;
    pool.stage = stage_of(part.role);
    pool.replicas = part.replicas;
    pool.ranks = part.engine->ranks();
    pool.policy = part.engine->policy(part.max_batch);
    // An engine that takes prompts whole never starts one that does not fit beside a full batch; who runs it so lets it
    // chunk prompts.
    const double longest = static_cast<double>(workload.isl) * workload.longest * (1 - workload.prefix_hit);
    const double full = std::min(static_cast<double>(pool.policy.max_sequences), workload.concurrency.value_or(1e6));
    const double beside = pool.stage == Stage::prefill ? 0 : full;
    if (longest + beside > static_cast<double>(pool.policy.max_tokens)) pool.policy.chunks = true;
    pool.policy.prefix_cache = scenario.hash_tokens > 0 && pool.stage != Stage::decode;
    pool.block_tokens = block_tokens;
    const double held = static_cast<double>(workload.isl + workload.osl) * workload.longest;
    const double users = workload.concurrency.value_or(1e6) / part.replicas / pool.ranks;
    pool.kv_blocks = part.engine->kv_blocks(
        typical_context(workload, pool.stage), block_tokens,
        held * std::clamp(std::ceil(users), 1.0, static_cast<double>(pool.policy.max_sequences)));
    if (part.has_room) {
      const double batch = static_cast<double>(pool.policy.max_sequences);
      pool.kv_blocks =
          std::max(pool.kv_blocks, static_cast<int64_t>(std::ceil(held * batch / static_cast<double>(block_tokens))));
    }
    pool.price = &leases.back().price();
    spec.pools.push_back(std::move(pool));
  }
  const double tokens = std::max(1.0, static_cast<double>(workload.isl));
  spec.transfer.us_per_token = deployment.transfer_ms.value * 1e3 / tokens;
  spec.router = deployment.router;
  spec.router.block_tokens = block_tokens;
  spec.failures = scenario.failures;
  spec.detection_us = scenario.detection_us;
  spec.migration_limit = scenario.migration_limit;
  spec.local_prefill_tokens = scenario.local_prefill_tokens;
  spec.exact = scenario.exact;
  spec.steady_after = scenario.steady_after;
  return spec;
}

Simulated simulate(const Deployment& deployment, const models::Workload& workload, const Scenario& scenario, Load& load,
                   Recorder& recorder) {
  std::vector<Engine::PriceLease> leases;
  Cluster cluster(cluster_of(deployment, workload, scenario, leases));
  if (scenario.prepare) scenario.prepare(cluster);
  if (scenario.look_us > 0)
    cluster.every(scenario.look_us, [&](double now_us) {
      recorder.begin_look();
      cluster.visit([&](const RequestRecord& r) { recorder.look(r, now_us); });
      if (recorder.end_look()) cluster.stop();
    });
  const ClusterTotals totals = cluster.run(load, recorder, scenario.most_us);
  Simulated out = figures_of(totals, recorder, workload.rate.has_value());
  const size_t last = deployment.parts.size() - 1;
  out.running = totals.busy_us[last] > 0 ? totals.decode_sequence_us[last] / totals.busy_us[last] : 0;
  return out;
}

Simulated figures_of(const ClusterTotals& t, const Recorder& recorder, bool open) {
  Simulated out;
  out.totals = t;
  out.ttft_ms = distribution(recorder.ttft_ms());
  out.tpot_ms = distribution(recorder.tpot_ms());
  out.latency_ms = distribution(recorder.latency_ms());
  out.queue_ms = distribution(recorder.queue_ms());
  const LogHistogram& itl = recorder.itl_ms();
  out.itl_ms = {itl.mean(),
                itl.quantile(0.5),
                itl.quantile(0.9),
                itl.quantile(0.95),
                itl.quantile(0.99),
                itl.most(),
                0,
                static_cast<int64_t>(itl.count())};
  const auto n = static_cast<double>(recorder.requests());
  const double all_s = std::max(1e-9, (recorder.last_answer_us() - recorder.first_arrival_us()) * 1e-6);
  const double mean_output = n > 0 ? recorder.output_tokens() / n : 1;
  const double window_s = (t.last_arrival_us - std::max(t.steady_us, recorder.first_arrival_us())) * 1e-6;
  const double window_tokens = t.tokens_at_last_arrival - t.tokens_at_steady;
  out.output_tokens_per_s =
      window_s > 0 && window_tokens > 0 ? window_tokens / window_s : recorder.output_tokens() / all_s;
  out.requests_per_s = out.output_tokens_per_s / mean_output;
  out.good_share =
      n > 0 ? static_cast<double>(recorder.good()) / static_cast<double>(recorder.requests() + t.lost + t.rejected) : 0;
  out.goodput_per_s = out.good_share * out.requests_per_s;
  out.hit_rate = t.counters.prompt_tokens > 0
                     ? static_cast<double>(t.counters.cached_tokens) / static_cast<double>(t.counters.prompt_tokens)
                     : 0;
  if (open) {
    // Of the requests that count: those before totals.steady_us are in neither.
    const double served = recorder.output_tokens() > 0 ? window_tokens / recorder.output_tokens() : 0;
    out.saturated = served < kServedShare && queue_grows(recorder.queue_ms(), out.latency_ms.mean);
  }
  out.hopeless = recorder.hopeless();
  return out;
}

}  // namespace drydock::simulator
