#include "configurator/predict.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace drydock::configurator {
namespace {

using core::Figure;
using models::Pool;
using models::Role;

double mean_output(const models::Workload& w) { return static_cast<double>(w.osl) * (w.shortest + w.longest) / 2; }

Figure scaled(const Figure& f, double by) { return {f.value * by, f.low * by, f.high * by}; }
Figure inverse(const Figure& f, double numerator) {
  return {numerator / f.value, numerator / f.high, numerator / f.low};
}

// A plan's engines need its formats in one place.
struct Setup {
  const models::Architecture& architecture;
  models::Precision precision;
};

Setup setup_of(const models::Plan& plan, Resources& resources) {
  const models::Architecture& architecture = resources.model(plan.model);
  const core::Hardware& hardware = resources.system(plan.pools.front().system).hardware;
  return {architecture, deployed_precision(architecture, plan.precision, plan.kv_precision, plan.backend, hardware)};
}

// TensorRT-LLM takes the KV format of ModelOpt checkpoints, which is fp8; vLLM's recipes for Blackwell ask for it.
bool keeps_kv_in_fp8(models::Backend backend, const core::Hardware& hardware, const models::Precision& precision) {
  using core::Dtype;
  if (precision.kv == Dtype::fp8) return true;
  if (precision.gemm == Dtype::bf16 && precision.moe == Dtype::bf16) return false;
  if (backend == models::Backend::trtllm) return precision.gemm != Dtype::fp8_block;
  return backend == models::Backend::vllm && hardware.architecture == "blackwell";
}

core::Error does_not_fit(const models::Plan& plan, const Pool& pool, const Setup& setup,
                         const simulator::Engine& engine, Resources& resources) {
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  const auto gib = [&](double bytes) { return std::to_string(std::lround(bytes / kGiB)) + " GiB"; };
  return core::Error("pool '" + std::string(models::name(pool.role)) + "' of " + setup.architecture.name +
                     " is out of memory: " + gib(engine.memory().fixed()) +
                     " of weights and buffers and the KV cache of " +
                     std::to_string(plan.workload.isl + plan.workload.osl) + " tokens do not fit " +
                     gib(resources.system(pool.system).memory_bytes));
}

std::shared_ptr<const simulator::ExpertLoad> experts_of(const models::Plan& plan, const Pool& pool, const Setup& setup,
                                                        Resources& resources) {
  simulator::check_experts(plan.experts, setup.architecture, "field 'experts'");
  return simulator::expert_load(plan.experts, setup.architecture, pool.parallelism, resources.system(pool.system),
                                "field 'experts'");
}

simulator::Engine engine_of(const models::Plan& plan, const Pool& pool, const Setup& setup, Resources& resources,
                            Fit fit, const simulator::BackendModel* changed = nullptr, bool remembers = false) {
  if (const auto reason = models::why_illegal(setup.architecture, setup.precision, pool.parallelism))
    throw core::Error("pool '" + std::string(models::name(pool.role)) + "' of " + setup.architecture.name + ": " +
                      *reason);
  auto options =
      simulator::engine_options(simulator::speculation_of(plan.speculative, setup.architecture, "field 'speculative'"),
                                experts_of(plan, pool, setup, resources), pool.role);
  options.remembers = remembers;
  options.two_batch_overlap = pool.two_batch_overlap;
  options.shared_expert_overlap = pool.shared_expert_overlap;
  if (pool.role != Role::decode) options.waits = pool.waits;
  simulator::Engine engine(setup.architecture, setup.precision, pool.parallelism, resources.system(pool.system),
                           resources.times(pool.system, plan.backend),
                           changed ? *changed : resources.backend(plan.backend), pool.max_tokens, options);
  const bool fits = fit == Fit::required ? engine.slots(plan.workload) >= 1
                                         : engine.memory().weights < resources.system(pool.system).memory_bytes;
  if (!fits) throw does_not_fit(plan, pool, setup, engine, resources);
  return engine;
}

PoolDetail detail(const models::Plan& plan, const Pool& pool, const simulator::Engine& engine, Role phase, double batch,
                  Resources& resources) {
  PoolDetail out;
  out.role = pool.role;
  out.phase = phase;
  out.batch = batch;
  out.ops = engine.breakdown(plan.workload, phase, batch);
  out.provenance = engine.provenance(plan.workload, phase, batch);
  out.memory = engine.memory();
  out.kv_tokens = engine.kv_tokens();
  out.memory_bytes = resources.system(pool.system).memory_bytes;
  const perfdb::KernelTimes& times = resources.times(pool.system, plan.backend);
  out.kernel_version = times.version();
  out.borrowed_from = times.borrowed_from();
  if (const auto& load = engine.options().experts)
    out.experts = PoolDetail::ExpertBalance{load->slots(), load->imbalance_before(), load->imbalance_after()};
  return out;
}

}  // namespace

models::Precision deployed_precision(const models::Architecture& architecture, const std::string& precision,
                                     const std::string& kv_precision, models::Backend backend,
                                     const core::Hardware& hardware) {
  models::Precision out = models::choose_precision(architecture, precision, kv_precision);
  if (kv_precision == "auto" && keeps_kv_in_fp8(backend, hardware, out)) out.kv = core::Dtype::fp8;
  return out;
}

models::Prediction prediction_of(const simulator::Served& served, const models::Workload& workload, int gpus,
                                 std::optional<double> price) {
  models::Prediction p;
  p.ttft_ms = served.ttft_ms;
  p.tpot_ms = served.tpot_ms;
  const double steps = std::max(0.0, mean_output(workload) - 1);
  const auto latency = [&](double ttft, double tpot) { return ttft + steps * tpot; };
  p.request_latency_ms = {latency(served.ttft_ms.value, served.tpot_ms.value),
                          latency(served.ttft_ms.low, served.tpot_ms.low),
                          latency(served.ttft_ms.high, served.tpot_ms.high)};
  p.requests_per_s = served.requests_per_s;
  p.tokens_per_s_per_gpu = scaled(served.requests_per_s, mean_output(workload) / gpus);
  p.tokens_per_s_per_user = inverse(served.tpot_ms, 1000);
  constexpr double kMillion = 1e6, kSecondsPerHour = 3600;
  p.gpu_hours_per_million_tokens = inverse(p.tokens_per_s_per_gpu, kMillion / kSecondsPerHour);
  if (served.tail)
    p.tail = models::Prediction::Tail{served.tail->quantile * 100, served.tail->ttft_ms, served.tail->tpot_ms,
                                      served.tail->request_latency_ms};
  if (price) p.cost_per_million_tokens = scaled(p.gpu_hours_per_million_tokens, *price / gpus);
  return p;
}

simulator::Targets targets_of(const models::Slo& slo) {
  simulator::Targets t{slo.ttft_ms, slo.tpot_ms, slo.request_latency_ms, std::nullopt};
  if (slo.percentile) t.quantile = *slo.percentile / 100;
  return t;
}

std::optional<double> price_per_hour(const models::Plan& plan, Resources& resources) {
  double total = 0;
  for (const Pool& pool : plan.pools) {
    const auto price = resources.system(pool.system).price_per_gpu_hour;
    if (!price) return std::nullopt;
    total += *price * pool.gpus();
  }
  return total;
}

Instances instances_of(const models::Plan& plan, Resources& resources, Fit fit, const simulator::BackendModel* changed,
                       bool remembers) {
  const Setup setup = setup_of(plan, resources);
  Instances out;
  for (const Pool& pool : plan.pools) {
    out.engines.push_back(
        std::make_unique<simulator::Engine>(engine_of(plan, pool, setup, resources, fit, changed, remembers)));
    const bool has_room = fit == Fit::assumed && plan.mode == models::Mode::disagg;  // its batch is stated
    out.deployment.parts.push_back({out.engines.back().get(), pool.role, pool.replicas, pool.max_batch, has_room});
  }
  if (plan.mode == models::Mode::disagg) {
    const Pool &prefill = plan.pool(Role::prefill), &decode = plan.pool(Role::decode);
    out.deployment.transfer_ms = simulator::kv_transfer_ms(
        setup.architecture, setup.precision, prefill.parallelism, decode.parallelism, resources.system(prefill.system),
        resources.system(decode.system), static_cast<double>(plan.workload.isl));
  }
  return out;
}

namespace {

std::optional<simulator::Served> by_closed_form(const simulator::Deployment& d, const models::Workload& workload) {
  const simulator::Part &first = d.parts.front(), &last = d.parts.back();
  if (d.parts.size() == 1) return simulator::aggregated(*first.engine, first.replicas, first.max_batch, workload);
  return simulator::disaggregated(*first.engine, first.replicas, first.max_batch, *last.engine, last.replicas,
                                  last.max_batch, d.transfer_ms, workload);
}

}  // namespace

std::optional<models::Prediction> predict(const models::Plan& plan, Resources& resources, Fit fit, Method method) {
  const Instances instances = instances_of(plan, resources, fit);
  simulator::LoadOptions options;
  options.gives_up = false;  // what a plan does is asked, not whether it meets its targets
  const auto served = method == Method::analytic
                          ? by_closed_form(instances.deployment, plan.workload)
                          : simulator::serve(instances.deployment, plan.workload, targets_of(plan.slo), options);
  if (!served) return std::nullopt;
  return prediction_of(*served, plan.workload, plan.gpus(), price_per_hour(plan, resources));
}

std::vector<PoolDetail> explain(const models::Plan& plan, Resources& resources, Fit fit) {
  const Setup setup = setup_of(plan, resources);
  std::vector<PoolDetail> out;
  for (const Pool& pool : plan.pools) {
    const simulator::Engine engine = engine_of(plan, pool, setup, resources, fit);
    const double most = static_cast<double>(engine.batch_limit(plan.workload, pool.max_batch));
    const double asked = plan.workload.concurrency.value_or(most * pool.replicas) / pool.replicas;
    const double batch = pool.role == Role::prefill ? most : std::clamp(asked, 1.0, most);
    if (pool.role != Role::decode)
      out.push_back(detail(plan, pool, engine, Role::prefill, pool.role == Role::worker ? 1 : batch, resources));
    if (pool.role != Role::prefill) out.push_back(detail(plan, pool, engine, Role::decode, batch, resources));
  }
  return out;
}

std::vector<PlacedExperts> placed_experts(const models::Plan& plan, Resources& resources) {
  std::vector<PlacedExperts> out;
  const Setup setup = setup_of(plan, resources);
  const models::Architecture& a = setup.architecture;
  for (const Pool& pool : plan.pools) {
    const auto load = experts_of(plan, pool, setup, resources);
    if (!load) continue;
    const auto mixture = std::find_if(a.kinds.begin(), a.kinds.end(),
                                      [](const models::LayerKind& kind) { return kind.ffn && kind.ffn->is_moe(); });
    const models::Ffn& ffn = *mixture->ffn;
    const double elements = static_cast<double>((ffn.gated ? 3 : 2) * a.hidden * ffn.inter) / pool.parallelism.moe_tp;
    out.push_back({pool.role, load, elements * core::bytes_per_element(setup.precision.moe),
                   core::link_bytes_per_s(resources.system(pool.system).hardware, pool.parallelism.gpus())});
  }
  return out;
}

std::vector<std::pair<Role, std::string>> expert_placements(const models::Plan& plan, Resources& resources) {
  std::vector<std::pair<Role, std::string>> out;
  if (plan.experts.slots == 0) return out;
  for (const PlacedExperts& experts : placed_experts(plan, resources))
    out.emplace_back(experts.role, experts.load->placement_json());
  return out;
}

}  // namespace drydock::configurator
