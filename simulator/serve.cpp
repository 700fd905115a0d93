// The default load of a workload, and what users of a deployment feel under it.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "simulator/bands.h"
#include "simulator/simulation.h"

namespace drydock::simulator {
namespace {

constexpr double kClientGapUs = 1000;  // from an answer to the client's next request, on average
constexpr int64_t kLeastRequests = 400, kMostSteadyRequests = 2000, kOpenRequests = 1500, kMostOpenRequests = 12'000;

int64_t users_of(const models::Workload& w) { return std::llround(std::max(1.0, w.concurrency.value_or(1))); }

// One of so many equal parts of a deployment, with its share of the load.
struct Slice {
  Deployment deployment;
  models::Workload workload;
  double parts = 1;
};

Slice slice_of(const Deployment& deployment, const models::Workload& workload) {
  Slice s{deployment, workload, 1};
  if (!s.workload.rate && !s.workload.concurrency) {
    const Part& last = deployment.parts.back();
    s.workload.concurrency = static_cast<double>(last.max_batch) * last.replicas;
  }
  int equal = deployment.parts.front().replicas;
  for (const Part& part : deployment.parts) equal = std::gcd(equal, part.replicas);
  // Fewer users than parts: the others stand idle.
  s.parts = s.workload.concurrency ? std::clamp(*s.workload.concurrency, 1.0, static_cast<double>(equal)) : equal;
  for (Part& part : s.deployment.parts) part.replicas /= equal;
  if (s.workload.rate) *s.workload.rate /= s.parts;
  if (s.workload.connections > 0)
    s.workload.connections = std::max<int64_t>(1, std::llround(static_cast<double>(s.workload.connections) / s.parts));
  if (s.workload.concurrency) *s.workload.concurrency = std::max(1.0, *s.workload.concurrency / s.parts);
  return s;
}

// Roughly the time a request takes: over so long the users of a steady closed loop come in.
double ramp_us(const Slice& slice) {
  if (!slice.workload.concurrency || slice.workload.burst) return 0;
  const Part& last = slice.deployment.parts.back();
  const double each = std::min(*slice.workload.concurrency / last.replicas, static_cast<double>(last.max_batch));
  return last.engine->decode(slice.workload, std::max(1.0, each)).tpot_ms.value * 1e3 *
         static_cast<double>(slice.workload.osl);
}

// Enough to tell a 95th percentile, over several times the latency of a request, so that the deployment fills up.
int64_t open_requests(const Slice& slice) {
  const Part& last = slice.deployment.parts.back();
  const double batch = std::max(1.0, static_cast<double>(std::min<int64_t>(last.max_batch, 64)));
  const double latency_s =
      last.engine->decode(slice.workload, batch).tpot_ms.value * 1e-3 * static_cast<double>(slice.workload.osl);
  return std::clamp<int64_t>(std::llround(5 * latency_s * *slice.workload.rate), kOpenRequests, kMostOpenRequests);
}

// Often enough that little is simulated in vain, seldom enough that looking costs little, also while nothing arrives.
double look_us(const Targets& t, const models::Workload& w) {
  constexpr double kLooks = 1e5;  // at most, in the time of the arrivals
  double us = kNever;
  if (t.ttft_ms) us = std::min(us, *t.ttft_ms * 1e3);
  if (t.tpot_ms) us = std::min(us, *t.tpot_ms * 1e3 * static_cast<double>(w.osl) / 4);
  if (t.latency_ms) us = std::min(us, *t.latency_ms * 1e3 / 4);
  if (w.rate) us = std::max(us, kOpenRequests / *w.rate * 1e6 / kLooks);
  return us;
}

// Figures with their bands.
class Bands {
 public:
  Bands(const Deployment& deployment, const models::Workload& workload, double running, bool wanted)
      : backend_(deployment.parts.front().engine->backend()), apart_(deployment.parts.size() > 1) {
    if (!wanted) return;
    decode_ = deployment.parts.back().engine->decode_spread(workload, std::max(1.0, running));
    prefill_ = std::hypot(deployment.parts.front().engine->prefill_spread(workload), decode_);
  }

  core::Figure ttft(double ms) const { return banded(ms, prefill_, backend_.ttft_spread_of(apart_)); }
  core::Figure tpot(double ms) const { return banded(ms, decode_, backend_.tpot_spread_of(apart_)); }
  core::Figure rate(double per_s) const { return tpot(per_s); }

 private:
  const BackendModel& backend_;
  bool apart_;
  double decode_ = 0, prefill_ = 0;
};

Served::Tail tail_of(const Recorder& recorder, const Bands& bands, double q) {
  std::vector<double> ttft = recorder.ttft_ms(), tpot = recorder.tpot_ms(), latency = recorder.latency_ms();
  return {q, bands.ttft(quantile(ttft, q)), bands.tpot(quantile(tpot, q)), bands.tpot(quantile(latency, q)),
          recorder.hopeless()};
}

}  // namespace

int64_t requests_of(const models::Workload& w, const LoadOptions& options) {
  if (options.requests) return *options.requests;
  if (w.rate) return kOpenRequests;
  if (w.burst) return std::max<int64_t>(kLeastRequests, std::llround(kPromptsPerSlot) * users_of(w));
  return std::clamp<int64_t>(2 * users_of(w), kLeastRequests, kMostSteadyRequests);
}

int64_t filling_of(const models::Workload& w, const LoadOptions& options) {
  if (w.rate) return requests_of(w, options) / 10;
  return w.burst ? 0 : users_of(w);
}

LengthDistribution lengths_of(const models::Workload& w) {
  const auto range = [&](int64_t nominal) {
    const auto n = static_cast<double>(nominal);
    const int64_t low = std::max<int64_t>(1, std::llround(n * w.shortest));
    return LengthDistribution::Range{low, std::max(low, static_cast<int64_t>(std::llround(n * w.longest)))};
  };
  return LengthDistribution::uniform(range(w.isl), range(w.osl));
}

std::unique_ptr<Load> load_of(const models::Workload& w, double gap_us, const LoadOptions& options) {
  const PrefixSharing prefix{w.prefix_hit, w.prefix_hit > 0 ? models::kKvBlockTokens : 0};
  const LengthDistribution lengths = options.lengths ? *options.lengths : lengths_of(w);
  const int64_t requests = filling_of(w, options) + requests_of(w, options);
  if (w.rate) {
    OpenOptions open;
    open.rate.per_s = *w.rate;
    open.burstiness = options.burstiness;
    open.requests = requests;
    open.lengths = lengths;
    open.prefix = prefix;
    open.seed = options.seed;
    return make_open_load(open);
  }
  if (!w.concurrency) throw core::Error("the plan's workload has neither rate nor concurrency: give one of them");
  ClosedLoopOptions closed;
  closed.concurrency = users_of(w);
  closed.prompts = requests;
  closed.warmup = 0;
  closed.lengths = lengths;
  closed.connections = w.connections;
  closed.gap_us = gap_us;
  closed.uniform_gap = true;
  closed.ramp_us = options.ramp_us;
  closed.prefix = prefix;
  closed.seed = options.seed;
  return make_closed_loop(closed);
}

std::optional<Served> serve(const Deployment& deployment, const models::Workload& asked, const Targets& targets,
                            const LoadOptions& given, UserTimes* times, bool* first_tokens_late) {
  const Slice slice = slice_of(deployment, asked);
  const models::Workload& workload = slice.workload;
  LoadOptions options = given;
  options.ramp_us = ramp_us(slice);
  if (workload.rate && !options.requests) options.requests = open_requests(slice);
  const Engine& front = *slice.deployment.parts.front().engine;
  const auto load = load_of(workload, kClientGapUs, options);
  Recorder::Options recording;
  const bool apart = slice.deployment.parts.size() > 1;
  recording.client = {front.outside_ms(workload.concurrency.value_or(0) / slice.deployment.parts.front().replicas) +
                          front.backend().hand_over(apart),
                      workload.stream_interval};
  recording.targets = targets;
  recording.skip = filling_of(workload, options);
  recording.expected_requests = targets.quantile && options.gives_up ? requests_of(workload, options) : 0;
  Recorder recorder(recording);
  Scenario scenario;
  scenario.hash_tokens = load->hash_tokens();
  scenario.steady_after = workload.concurrency ? users_of(workload) : recording.skip;
  if (targets.quantile && targets.any() && options.gives_up) scenario.look_us = look_us(targets, workload);
  const Simulated s = simulate(slice.deployment, workload, scenario, *load, recorder);
  if (times) *times = {recorder.ttft_ms(), recorder.tpot_ms(), recorder.latency_ms()};
  if (first_tokens_late) *first_tokens_late = recorder.first_tokens_late();
  if (s.saturated || recorder.requests() == 0) return std::nullopt;
  const Bands bands(slice.deployment, workload, s.running, options.bands);
  Served out;
  out.outside_users = workload.concurrency.value_or(0) / slice.deployment.parts.front().replicas;
  out.ttft_ms = bands.ttft(s.ttft_ms.mean);
  // Answers of one token have no TPOT: what a second token would take.
  const Engine& back = *slice.deployment.parts.back().engine;
  out.tpot_ms =
      s.tpot_ms.mean > 0 ? bands.tpot(s.tpot_ms.mean) : back.decode(workload, std::max(1.0, s.running)).tpot_ms;
  out.requests_per_s =
      asked.rate ? core::Figure{*asked.rate, *asked.rate, *asked.rate} : bands.rate(s.requests_per_s * slice.parts);
  out.in_flight =
      slice.parts * (workload.concurrency ? *workload.concurrency : s.requests_per_s * s.latency_ms.mean * 1e-3);
  out.good_share = s.good_share;
  if (targets.quantile) out.tail = tail_of(recorder, bands, *targets.quantile);
  return out;
}

}  // namespace drydock::simulator
