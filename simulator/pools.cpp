#include <algorithm>
#include <cmath>

#include "simulator/bands.h"
#include "simulator/serving.h"

namespace drydock::simulator {
namespace {

core::Figure plus(const core::Figure& a, double b) { return {a.value + b, a.low + b, a.high + b}; }

// A TTFT that holds `transfer` already; its band widens by the transfer's.
core::Figure with_band_of(const core::Figure& ttft, const core::Figure& transfer) {
  return {ttft.value, std::max(ttft.low - (transfer.value - transfer.low), ttft.value / 100),
          ttft.high + (transfer.high - transfer.value)};
}
core::Figure times(const core::Figure& a, double b) { return {a.value * b, a.low * b, a.high * b}; }

Served mean_of(const core::Figure& ttft_ms, const core::Figure& tpot_ms, const core::Figure& requests_per_s,
               double in_flight) {
  Served out;
  out.ttft_ms = ttft_ms;
  out.tpot_ms = tpot_ms;
  out.requests_per_s = requests_per_s;
  out.in_flight = in_flight;
  return out;
}

// Mean wait for one of `servers` equal deterministic servers under Poisson arrivals, in service times.
// Sakasegawa, "An approximation formula L_q = a rho^b / (1 - rho)", 1977; halved for deterministic service.
double queue_wait(double load, double servers) {
  return std::pow(load, std::sqrt(2 * (servers + 1)) - 1) / (servers * (1 - load)) / 2;
}

// One choice of requests running in decode, and what follows for the rest.
struct Balance {
  double rate = 0;  // requests/s
  double ttft_ms = 0;
  double in_flight = 0;
  core::Figure tpot_ms;
};

struct Pools {
  const Engine& prefill;
  double prefill_replicas;
  const Engine& decode;
  double decode_replicas;
  core::Figure transfer_ms;
  const models::Workload& workload;
  Engine::Prefill prompt;

  double capacity() const { return prompt.requests_per_s.value * prefill_replicas; }
  double output_steps() const {
    return std::max(1.0, static_cast<double>(workload.osl) * (workload.shortest + workload.longest) / 2 - 1);
  }

  double ttft_ms(double rate) const {
    const double load = std::min(rate / capacity(), 0.999);
    return prompt.batch_ms.value * (1 + queue_wait(load, prefill_replicas)) + transfer_ms.value;
  }

  Balance at(double running) const {
    Balance out;
    out.tpot_ms = decode.decode(workload, running / decode_replicas).tpot_ms;
    out.rate = running / (output_steps() * out.tpot_ms.value * 1e-3);
    out.ttft_ms = ttft_ms(out.rate);
    out.in_flight = out.rate >= capacity() ? INFINITY : running + out.rate * out.ttft_ms * 1e-3;
    return out;
  }

  // The largest number running for which `below` holds, by bisection; below must be monotone.
  template <typename Below>
  double largest_running(double most, const Below& below) const {
    if (below(at(most))) return most;
    double low = 0, high = most;
    for (int i = 0; i < 50; ++i) (below(at((low + high) / 2)) ? low : high) = (low + high) / 2;
    return std::max(low, 1e-6);
  }
};

Served closed(const Pools& pools, double concurrency, double slots) {
  const double running =
      pools.largest_running(std::min(slots, concurrency), [&](const Balance& b) { return b.in_flight <= concurrency; });
  const Balance balance = pools.at(running);
  // Little's law: who is neither in decode nor in prefill waits, and every wait is part of TTFT.
  const double cycle_ms = concurrency / balance.rate * 1e3;
  const double steady_ms = std::max(balance.ttft_ms, cycle_ms - pools.output_steps() * balance.tpot_ms.value);
  const double burst_ms =
      pools.transfer_ms.value + std::max(pools.prompt.batch_ms.value, concurrency / pools.capacity() / 2 * 1e3);
  const double ttft_ms = std::max(steady_ms, (burst_ms + (kPromptsPerSlot - 1) * steady_ms) / kPromptsPerSlot);
  const double scale = ttft_ms / pools.prompt.batch_ms.value;
  return mean_of(times(pools.prompt.batch_ms, scale), balance.tpot_ms,
                 {balance.rate, balance.rate * balance.tpot_ms.value / balance.tpot_ms.high,
                  balance.rate * balance.tpot_ms.value / balance.tpot_ms.low},
                 concurrency);
}

std::optional<Served> open(const Pools& pools, double rate, double slots) {
  if (rate >= pools.capacity()) return std::nullopt;
  const double running = pools.largest_running(slots, [&](const Balance& b) { return b.rate <= rate; });
  const Balance balance = pools.at(running);
  if (balance.rate < rate * 0.999) return std::nullopt;
  const double scale = pools.ttft_ms(rate) / pools.prompt.batch_ms.value;
  return mean_of(times(pools.prompt.batch_ms, scale), balance.tpot_ms, {rate, rate, rate}, balance.in_flight);
}

}  // namespace

core::Figure kv_transfer_ms(const models::Architecture& architecture, const models::Precision& precision,
                            const models::Parallelism& prefill, const models::Parallelism& decode,
                            const models::System& from, const models::System& to, double tokens) {
  // One block of one layer is one descriptor. A handshake costs about half a millisecond (Mooncake transfer engine's
  // published table), a descriptor 1 us when batched and posted from many threads; as deployed, NIXL has been seen at
  // 2-4 GB/s, which with such blocks is 10 us and more a descriptor: the upper end of the band.
  constexpr double kFixedMs = 0.5, kDescriptorUs = 1, kSlowDescriptorUs = 10, kLinkShare = 0.8;
  double bytes = 0;  // that one decode GPU must receive
  for (int stage = 0; stage < decode.pp; ++stage)
    bytes = std::max(bytes, models::sequence_kv_bytes(architecture, precision, decode, stage, tokens));
  const double layers = std::ceil(static_cast<double>(architecture.layers()) / prefill.pp);
  const double in = core::link_bytes_per_s(to.hardware, to.hardware.gpus_per_node + 1);
  const double out = core::link_bytes_per_s(from.hardware, from.hardware.gpus_per_node + 1);
  // Each of the prompt's senders has a share of what the receivers' ranks need; copies are sent once for each of them.
  const double senders = prefill.tp * prefill.pp, receivers = decode.tp * decode.pp;
  const double wire_ms = std::max(bytes / in, bytes * receivers / senders / out) / kLinkShare * 1e3;
  const double descriptors = layers * std::ceil(tokens / static_cast<double>(models::kKvBlockTokens));
  const double value = kFixedMs + wire_ms + descriptors * kDescriptorUs * 1e-3;
  return {value, wire_ms, kFixedMs + wire_ms + descriptors * kSlowDescriptorUs * 1e-3};
}

std::optional<Served> disaggregated(const Engine& prefill, int prefill_replicas, int64_t prefill_batch,
                                    const Engine& decode, int decode_replicas, int64_t decode_batch,
                                    const core::Figure& transfer_ms, const models::Workload& workload) {
  const Pools pools{
      prefill,  static_cast<double>(prefill_replicas),   decode, static_cast<double>(decode_replicas), transfer_ms,
      workload, prefill.prefill(workload, prefill_batch)};
  double slots = static_cast<double>(decode.batch_limit(workload, decode_batch)) * decode_replicas;
  if (workload.connections > 0) slots = std::min(slots, static_cast<double>(workload.connections));
  std::optional<Served> out;
  if (workload.rate)
    out = open(pools, *workload.rate, slots);
  else
    out = closed(pools, workload.concurrency.value_or(slots), slots);
  if (out) {
    const core::Figure ttft_ms =
        plus(out->ttft_ms, prefill.outside_ms(out->in_flight / prefill_replicas) + prefill.backend().hand_over(true));
    out->ttft_ms = with_band_of(ttft_ms, transfer_ms);
    // Their bands are those of engines by themselves.
    const BackendModel& b = prefill.backend();
    const auto more = [](double all, double own) { return std::sqrt(all * all - own * own); };
    out->ttft_ms = widened(out->ttft_ms, more(b.ttft_spread_of(true), b.ttft_spread));
    out->tpot_ms = widened(out->tpot_ms, more(b.tpot_spread_of(true), b.tpot_spread));
    if (!workload.rate) out->requests_per_s = widened(out->requests_per_s, more(b.tpot_spread_of(true), b.tpot_spread));
  }
  return out;
}

std::optional<Served> aggregated(const Engine& worker, int replicas, int64_t max_batch,
                                 const models::Workload& workload) {
  const auto whole = [&](const Engine::Agg& one, double in_flight) {
    // Fewer requests than replicas: the others stand idle.
    return mean_of(one.ttft_ms, one.tpot_ms,
                   times(one.requests_per_s, std::min<double>(replicas, std::max(in_flight, 1.0))), in_flight);
  };
  if (workload.rate) {
    const auto one = worker.open_loop(workload, *workload.rate / replicas, max_batch);
    if (!one) return std::nullopt;
    return mean_of(one->ttft_ms, one->tpot_ms, times(one->requests_per_s, replicas), one->running * replicas);
  }
  const double concurrency = workload.concurrency.value_or(static_cast<double>(max_batch) * replicas);
  return whole(worker.aggregated(workload, std::max(1.0, concurrency / replicas), max_batch), concurrency);
}

}  // namespace drydock::simulator
