#include "profiler/simulated_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>

#include "core/error.h"
#include "core/random.h"
#include "perfdb/simulated.h"

namespace drydock::profiler {
namespace {

using core::Op;
using core::OpKind;

// Independent units of work of one launch, and how well one of them runs.
struct Work {
  double units = 1;
  double efficiency = 1;  // of arithmetic; of matrix products with idle units of the last wave counted
};

double ceil_div(double a, double b) { return std::ceil(a / b); }

// The best of several tiles and splits of k, as a library's heuristic picks them: units that do not fill the last wave
// idle, small tiles read their operands more often, each split costs a pass over the result.
Work matrix_work(double m, double n, double k, double copies, double sms) {
  Work best;
  double most = 0;
  for (const double tile_m : {16.0, 32.0, 64.0, 128.0, 256.0})
    for (const double tile_n : {64.0, 128.0, 256.0})
      for (const double split : {1.0, 2.0, 4.0, 8.0}) {
        const double units = copies * ceil_div(m, tile_m) * ceil_div(n, tile_n) * split;
        const double fill = m * n * copies * split / (units * tile_m * tile_n), waves = units / sms;
        const double reuse = tile_m * tile_n / (tile_m * tile_n + 24 * (tile_m + tile_n));
        const double useful = fill * reuse * k / (k + 128 * split) * waves / std::ceil(waves);
        if (useful <= most) continue;
        most = useful;
        best = {units, useful};
      }
  return best;
}

Work work_of(const Op& op, double sms) {
  std::array<double, core::kMaxOpDims> s{};
  std::copy(op.shape.begin(), op.shape.end(), s.begin());
  switch (op.kind) {
    case OpKind::gemm:
      return matrix_work(s[0], s[1], s[2], 1, sms);
    case OpKind::batched_gemm:
      return matrix_work(s[0], s[1], s[2], s[3], sms);
    case OpKind::moe: {
      const double each = std::max(1.0, s[0] * s[4] / s[3]);
      return matrix_work(each, 3 * s[2], s[1], s[3] / s[5], sms);
    }
    case OpKind::prefill_attention:
    case OpKind::mla_prefill:
      return {s[0] * s[3] * ceil_div(s[1], 128), 0.65 * s[1] / (s[1] + 200)};
    case OpKind::decode_attention:  // split over the context, so that there is always something to share
      return {s[0] * s[3] * ceil_div(s[1], 512), 0.4};
    case OpKind::mla_decode:
      return {s[0] * ceil_div(s[1], 256), 0.5};
    default:
      return {ceil_div(core::bytes(op), 65536), 0.5};
  }
}

class SimulatedExperiment : public Experiment {
 public:
  SimulatedExperiment(const Silicon& silicon, const Op& op, Failure failure)
      : silicon_(silicon),
        mean_us_(true_us(op, silicon.system)),
        kernel_(op.kind == OpKind::decode_attention ? "attend+combine" : "law"),
        random_(silicon.seed, core::mix(hash(op))),
        failure_(failure) {}

  Reading sample() override {
    fail();
    ++taken_;
    const int64_t every = silicon_.throttle_every;
    const bool throttled = every > 0 && taken_ % every >= every - every / 10;
    const double factor = std::max(0.5, 1 + silicon_.noise * random_.normal());
    return {mean_us_ * factor * (throttled ? 1.3 : 1), throttled};
  }

  std::string kernel() override { return kernel_; }
  std::optional<double> joules() override { return mean_us_ * 1e-6 * silicon_.system.power_w; }

 private:
  void fail() const {
    while (failure_ == Failure::hang) ::pause();
    if (failure_ == Failure::error) throw core::Error("simulated failure of a launch");
    if (failure_ == Failure::lost) *silicon_.is_lost = true;
    if (failure_ == Failure::lost || failure_ == Failure::crash)
      ::_exit(139);  // as a segmentation fault would, without a core file
  }

  static uint64_t hash(const Op& op) {
    uint64_t out = static_cast<uint64_t>(op.kind);
    for (const int64_t extent : op.shape) out = core::mix(out ^ static_cast<uint64_t>(extent));
    return out;
  }

  const Silicon& silicon_;
  double mean_us_;
  const char* kernel_;
  core::Random random_;
  Failure failure_;
  int64_t taken_ = 0;
};

double device_bytes(const Op& op) { return core::is_communication(op.kind) ? 0 : core::bytes(op); }

// False, in memory that a process and those it forks share.
std::shared_ptr<std::atomic<bool>> shared_flag() {
  static_assert(std::atomic<bool>::is_always_lock_free);
  void* const page =
      ::mmap(nullptr, sizeof(std::atomic<bool>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw std::bad_alloc();
  return {new (page) std::atomic<bool>(false), [](std::atomic<bool>* flag) { ::munmap(flag, sizeof *flag); }};
}

}  // namespace

Silicon usual_silicon(const models::System& system) {
  Silicon out;
  out.system = system;
  out.system.hardware.name = perfdb::simulated_name(system.name());
  out.is_lost = shared_flag();
  return out;
}

double true_us(const Op& op, const models::System& system) {
  const core::Hardware& h = system.hardware;
  constexpr double kFloorUs = 2.2;
  if (core::is_communication(op.kind)) {
    const double link = core::link_bytes_per_s(h, op.shape[1]), bytes = core::bytes(op);
    return 6 + bytes / (0.8 * link * bytes / (bytes + 2e5)) * 1e6;
  }
  const double sms = h.sms;
  const Work work = work_of(op, sms);
  const bool is_matrix = op.kind == OpKind::gemm || op.kind == OpKind::batched_gemm || op.kind == OpKind::moe;
  const double waves = is_matrix ? 1 : std::ceil(work.units / sms) / (work.units / sms);
  const double peak = core::peak_flops_per_s(h, op.dtype);
  const double compute = peak > 0 ? core::flops(op) / (peak * work.efficiency) * std::min(waves, 8.0) : 0;
  // A third of the SMs fill the bus.
  const double busy = std::min(1.0, 3 * work.units / sms), bytes = core::bytes(op);
  const double memory = bytes / (0.9 * h.memory_bytes_per_s * busy) + 1e-6 * bytes / (bytes + 1e6);
  return kFloorUs + std::cbrt(compute * compute * compute + memory * memory * memory) * 1e6;
}

SimulatedDevice::SimulatedDevice(Silicon silicon) : silicon_(std::move(silicon)) {
  if (silicon_.is_lost && *silicon_.is_lost)
    throw core::Error("the simulated device is lost; it can't be opened again");
}

Identity SimulatedDevice::identity() {
  Identity out;
  out.gpu = "simulated " + silicon_.system.gpu;
  out.driver = "none";
  out.clocks = "none";
  out.version = std::string(perfdb::kSimulatedVersion) + "1";
  out.units = silicon_.system.hardware.sms;
  out.memory_bytes = silicon_.system.memory_bytes;
  out.power_w = silicon_.system.power_w;
  return out;
}

Failure SimulatedDevice::failure_of(const Op& op) const {
  const std::string key = core::key(op);
  for (const Silicon::Fault& fault : silicon_.faults)
    if (key.find(fault.op) != std::string::npos) return fault.failure;
  return Failure::none;
}

std::optional<std::string> SimulatedDevice::why_not(const Op& op) {
  if (device_bytes(op) > silicon_.system.memory_bytes) return "not enough memory for " + core::key(op);
  return std::nullopt;
}

std::unique_ptr<Experiment> SimulatedDevice::prepare(const Op& op) {
  const Failure failure = failure_of(op);
  if (failure == Failure::out_of_memory) throw core::Error("out of memory");
  return std::make_unique<SimulatedExperiment>(silicon_, op, failure);
}

std::vector<KernelPart> SimulatedDevice::parts(const Op& op) {
  if (op.kind == OpKind::decode_attention) return {{"attend", 0.9}, {"combine", 0.1}};
  return {{"law", 1}};
}

}  // namespace drydock::profiler
