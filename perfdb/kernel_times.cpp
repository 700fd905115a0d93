#include "perfdb/kernel_times.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "perfdb/features.h"
#include "perfdb/simulated.h"
#include "perfdb/surface_set.h"

namespace drydock::perfdb {
namespace {

using core::Op;
using core::OpKind;
using core::Provenance;

// Half-widths of the band, in logarithm.
constexpr float kAnalytic = 0.9f;         // no table: stated efficiencies, off by a factor of 2.5
constexpr float kNetwork = 0.5f;          // over the network: unknown fabric and placement
constexpr float kPerOctave = 0.10f;       // beyond the lattice
constexpr float kUnsupported = 0.20f;     // in a corner of the lattice without samples
constexpr float kCached = 0.10f;          // prefill after cached tokens: the shipped tables have none
constexpr float kMostOutside = 6.0f;      // octaves that still widen the band
constexpr double kLeastOfRoofline = 0.7;  // clocks above the datasheet's and warm caches; nothing is faster

constexpr double kUnknownSpread = 0.03;     // of the median, where a measurement came without
constexpr double kDecilePerQuartile = 1.9;  // width of 10..90 % over that of 25..75 % of a normal distribution

struct Exact {
  Op op;
  KernelTime time;
};

KernelTime measured_time(const Measurement& row) {
  const double half = row.spread_us > 0 ? row.spread_us * kDecilePerQuartile / 2 : row.latency_us * kUnknownSpread;
  return {row.latency_us, std::max(row.latency_us - half, row.latency_us / 2), row.latency_us + half,
          Provenance::measured};
}

bool may_be_zero(OpKind kind, size_t dimension) {
  switch (kind) {
    case OpKind::prefill_attention:
      return dimension == 2 || dimension == 6;
    case OpKind::decode_attention:
      return dimension == 1 || dimension == 5;
    case OpKind::mla_prefill:
      return dimension == 2;
    case OpKind::mla_decode:
      return dimension == 1 || dimension == 4;
    case OpKind::sparse_mla:
      return dimension == 4;
    case OpKind::elementwise:
      return dimension > 0;
    default:
      return false;
  }
}

// An extent of 0, or a group of one.
bool does_nothing(const Op& op) {
  const size_t dimensions = core::dimension_names(op.kind).size();
  for (size_t i = 0; i < dimensions; ++i)
    if (op.shape[i] <= 0 && !may_be_zero(op.kind, i)) return true;
  if (!core::is_communication(op.kind)) return false;
  return op.shape[op.kind == OpKind::moe_dispatch || op.kind == OpKind::moe_combine ? 4 : 1] <= 1;
}

// A prompt after cached tokens, of which a surface made from whole prompts knows nothing.
bool lacks_context(const Surface& surface, const Op& op) {
  const int axis = context_axis(op.kind);
  return axis >= 0 && op.shape[2] > 0 && surface.axes <= axis;
}

KernelTime banded(double latency_us, double low, double high, Provenance provenance) {
  return {latency_us, latency_us * std::exp(low), latency_us * std::exp(high), provenance};
}

}  // namespace

// Where a backend runs kernels that another backend's tables describe better than its own:
// - vLLM's MXFP4 experts on Blackwell are FlashInfer's TensorRT-LLM kernels with MXFP8 activations, while its table
// timed
//   those with bf16 activations;
// - TensorRT-LLM's autotuner takes the fastest of several NVFP4 GEMMs on Blackwell, of which each table timed one.
enum class Sharing : uint8_t { none, experts, fastest_gemm };

Sharing sharing_of(std::string_view backend, const core::Hardware& hardware) {
  if (hardware.architecture != "blackwell") return Sharing::none;
  return backend == "vllm" ? Sharing::experts : backend == "trtllm" ? Sharing::fastest_gemm : Sharing::none;
}

struct KernelTimes::Impl {
  core::Hardware hardware;
  SurfaceSet surfaces;
  Sharing sharing = Sharing::none;
  SurfaceSet shared;            // the other backend's
  std::vector<Exact> measured;  // ordered by op
  std::string measured_version;

  const KernelTime* exact(const Op& op) const {
    const auto it = std::lower_bound(measured.begin(), measured.end(), op,
                                     [](const Exact& row, const Op& wanted) { return row.op < wanted; });
    return it != measured.end() && it->op == op ? &it->time : nullptr;
  }

  void read_measurements(const Database& database, std::string_view backend) {
    Database::Filter filter;
    filter.system = hardware.name;
    filter.backend = backend;
    database.read(filter, [&](const Measurement& row) {
      measured.push_back({row.op, measured_time(row)});
      measured_version = row.origin.version;
    });
    // Of several versions the one read last stands.
    std::stable_sort(measured.begin(), measured.end(), [](const Exact& a, const Exact& b) { return a.op < b.op; });
    const auto last =
        std::unique(measured.rbegin(), measured.rend(), [](const Exact& a, const Exact& b) { return a.op == b.op; });
    measured.erase(measured.begin(), last.base());
  }

  KernelTime predict(const Op& op) const {
    if (sharing == Sharing::experts && op.kind == OpKind::moe && op.dtype == core::Dtype::mxfp4)
      return predict(op, shared);
    const KernelTime own = predict(op, surfaces);
    if (sharing != Sharing::fastest_gemm || op.kind != OpKind::gemm || op.dtype != core::Dtype::nvfp4) return own;
    const KernelTime other = predict(op, shared);
    return other.latency_us < own.latency_us ? other : own;
  }

  KernelTime predict(const Op& op, const SurfaceSet& from) const {
    const double baseline = baseline_us(op, hardware);
    if (spans_network(op, hardware)) return banded(baseline, -kNetwork, kNetwork, Provenance::analytic);
    const Choice choice = from.find(op);
    if (choice.surface == nullptr) return banded(baseline, -kAnalytic, kAnalytic, Provenance::analytic);
    const Correction correction = evaluate(*choice.surface, coordinates(op));
    // Activations lie in the cache, which no roofline of the memory knows.
    const double least = op.kind == OpKind::elementwise ? 0 : kLeastOfRoofline * core::roofline_us(op, hardware);
    const double latency = std::max(baseline * std::exp(static_cast<double>(correction.log_ratio)), least);
    const bool cached = lacks_context(*choice.surface, op);
    const bool inside = correction.outside < 0.5f && correction.support > 0.5f;
    const float doubt = choice.doubt + kPerOctave * std::min(correction.outside, kMostOutside) +
                        kUnsupported * (1 - correction.support) + (cached ? kCached : 0);
    return banded(latency, static_cast<double>(correction.band.low - doubt),
                  static_cast<double>(correction.band.high + doubt),
                  choice.exact && inside && !cached ? Provenance::interpolated : Provenance::extrapolated);
  }
};

KernelTimes::KernelTimes(const Database& database, const core::Hardware& hardware, std::string_view backend) {
  refuse_simulated(database, hardware.name);
  auto impl = std::make_unique<Impl>();
  impl->hardware = hardware;
  impl->surfaces = SurfaceSet(database, hardware, backend);
  impl->sharing = sharing_of(backend, hardware);
  if (impl->sharing != Sharing::none)
    impl->shared = SurfaceSet(database, hardware, impl->sharing == Sharing::experts ? "trtllm" : "vllm");
  impl->read_measurements(database, backend);
  impl_ = std::move(impl);
}

KernelTimes::KernelTimes(const core::Hardware& hardware) {
  auto impl = std::make_unique<Impl>();
  impl->hardware = hardware;
  impl_ = std::move(impl);
}

KernelTimes::KernelTimes(KernelTimes&&) noexcept = default;
KernelTimes& KernelTimes::operator=(KernelTimes&&) noexcept = default;
KernelTimes::~KernelTimes() = default;

KernelTime KernelTimes::of(const Op& op) const {
  if (does_nothing(op)) return {0, 0, 0, Provenance::analytic};
  if (!impl_->measured.empty())
    if (const KernelTime* time = impl_->exact(op)) return *time;
  return impl_->predict(op);
}

const core::Hardware& KernelTimes::hardware() const { return impl_->hardware; }

std::string_view KernelTimes::version() const {
  return impl_->surfaces.version().empty() ? impl_->measured_version : impl_->surfaces.version();
}

std::string_view KernelTimes::borrowed_from() const { return impl_->surfaces.borrowed_from(); }

}  // namespace drydock::perfdb
