// Measured points that no engine can have produced, and how points files are read for calibration.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "configurator/calibrate.h"
#include "configurator/points.h"
#include "configurator/predict.h"
#include "core/error.h"

namespace drydock::configurator {
namespace {

// Clocks and datasheets are right to a few percent.
constexpr double kOver = 1.05;
constexpr double kLittle = 1.3;

// Least time of the ops that one GPU of the slowest stage launches: arithmetic at the peak rate and traffic at full
// bandwidth [us].
struct Least {
  double arithmetic_us = 0, memory_us = 0;
};

Least least_of(const models::Lowering& lowering, const models::BatchPart& part, const core::Hardware& hardware) {
  Least worst;
  std::vector<models::LayerOp> ops;
  for (int stage = 0; stage < lowering.stages(); ++stage) {
    lowering.lower({&part, 1}, stage, ops);
    Least sum;
    for (const models::LayerOp& item : ops) {
      if (core::is_communication(item.op.kind)) continue;
      sum.arithmetic_us += item.count * core::flops(item.op) / core::peak_flops_per_s(hardware, item.op.dtype) * 1e6;
      sum.memory_us += item.count * core::bytes(item.op) / hardware.memory_bytes_per_s * 1e6;
    }
    worst.arithmetic_us = std::max(worst.arithmetic_us, sum.arithmetic_us);
    worst.memory_us = std::max(worst.memory_us, sum.memory_us);
  }
  return worst;
}

}  // namespace

std::optional<std::string> why_not_physical(const MeasuredPoint& point, double requests_per_s, Resources& resources) {
  const models::Plan& plan = point.plan;
  const models::Workload& w = plan.workload;
  if (plan.mode != models::Mode::agg || !w.concurrency) return std::nullopt;
  const models::Pool& pool = plan.pools.front();
  const models::Architecture& architecture = resources.model(plan.model);
  const core::Hardware& hardware = resources.system(pool.system).hardware;
  const models::Precision precision =
      deployed_precision(architecture, plan.precision, plan.kv_precision, plan.backend, hardware);
  const models::Lowering lowering(architecture, precision, pool.parallelism);
  const double mean = (w.shortest + w.longest) / 2, output = std::max(1.0, static_cast<double>(w.osl) * mean);
  const auto prompt = std::max<int64_t>(1, std::llround(static_cast<double>(w.isl) * mean));
  const double latency_s = (point.ttft_ms + point.tpot_ms * (output - 1)) * 1e-3,
               users = *w.concurrency / pool.replicas;
  const double rate = users / latency_s;  // of one instance: Little's law
  if (requests_per_s > 0) {
    const double ratio = requests_per_s / (rate * pool.replicas);
    if (ratio > kLittle || ratio < 1 / kLittle)
      return fmt::format("Little's law: {:.3g} requests in flight at this latency are {:.3g} requests/s, not {:.3g}",
                         *w.concurrency, rate * pool.replicas, requests_per_s);
  }
  const int ranks = pool.parallelism.attention_dp;
  const double running = std::max(1.0, rate * point.tpot_ms * 1e-3 * (output - 1) / ranks / pool.parallelism.pp);
  const Least step = least_of(lowering, {running, 1, prompt + static_cast<int64_t>(output / 2), true, true}, hardware);
  const double round_ms = step.memory_us * pool.parallelism.pp * 1e-3;
  if (output > 1 && point.tpot_ms * kOver < round_ms)
    return fmt::format("TPOT {:.3g} ms, but reading weights and KV cache alone takes {:.3g} ms", point.tpot_ms,
                       round_ms);
  const double work_us = least_of(lowering, {1, prompt, 0, true, false}, hardware).arithmetic_us +
                         (output - 1) * step.arithmetic_us / running;
  const double busy = rate / ranks * work_us * 1e-6;
  if (busy > kOver) return fmt::format("arithmetic at {:.0f}% of the GPUs' peak", busy * 100);
  return std::nullopt;
}

namespace {

// Variants of one model are left out together.
std::string family(std::string name) {
  name = name.substr(name.rfind('/') + 1);
  for (const std::string_view tail : {"-Instruct-FP8", "-Instruct", "-NVFP4", "-FP8"})
    if (name.ends_with(tail)) name.resize(name.size() - tail.size());
  return name;
}

double optional_number(const core::Csv& points, size_t row, const char* column) {
  const auto at = points.find(column);
  return at ? points.number(row, *at, 0, 1e15).value_or(0) : 0;
}

}  // namespace

std::vector<MeasuredPoint> measured_points(const core::Csv& points, LeaveOut by, Resources& resources) {
  points.require({"mode", "model", "system", "backend", "isl", "osl", "ttft_ms", "tpot_ms"});
  std::vector<MeasuredPoint> out;
  for (size_t row = 0; row < points.rows(); ++row) {
    if (optional_number(points, row, "spec_doubt") > 0) continue;
    MeasuredPoint p;
    p.plan = plan_of(points, row, resources);
    p.ttft_ms = optional_number(points, row, "ttft_ms");
    p.tpot_ms = optional_number(points, row, "tpot_ms");
    p.line = points.line(row);
    if (p.ttft_ms <= 0 || (p.tpot_ms <= 0 && p.plan.workload.osl > 1))
      throw core::Error(points.origin() + ": line " + std::to_string(p.line) + ": ttft_ms and tpot_ms must be above 0");
    p.group = by == LeaveOut::model    ? family(p.plan.model)
              : by == LeaveOut::system ? p.plan.pools.front().system
                                       : std::to_string(p.line);
    p.doubt = why_not_physical(p, optional_number(points, row, "requests_per_s"), resources);
    out.push_back(std::move(p));
  }
  if (out.empty()) throw core::Error(points.origin() + ": no row to calibrate on; want rows with ttft_ms and tpot_ms");
  return out;
}

}  // namespace drydock::configurator
