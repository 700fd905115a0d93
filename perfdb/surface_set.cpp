#include "perfdb/surface_set.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <tuple>

#include "perfdb/fit.h"

namespace drydock::perfdb {
namespace {

using core::Dtype;
using core::OpKind;

// Doubt added per kind of substitution, in logarithm; docs/surfaces.md tells how far substitutes were off.
constexpr float kOtherSystem = 0.20f;   // same architecture, its own roofline
constexpr float kOtherBackend = 0.15f;  // same GPU, another engine's kernels
constexpr float kOtherFormat = 0.10f;   // a close format, such as fp8 for fp8_block
constexpr float kForeignFormat = 0.35f;
constexpr float kPerVariantOctave = 0.12f, kMostVariantDoubt = 0.5f;

// Systems with shipped tables, as a system without any is to find the one most like it.
struct Donor {
  const char* name;
  const char* architecture;
  int sm_version;
  double memory_bytes_per_s;
};
constexpr Donor kDonors[] = {
    {"a100_sxm", "ampere", 80, 2.04e12},    {"l40s", "ada", 89, 0.86e12},       {"h100_sxm", "hopper", 90, 3.35e12},
    {"h200_sxm", "hopper", 90, 4.8e12},     {"b200_sxm", "blackwell", 100, 8e12}, {"gb200", "blackwell", 100, 8e12},
    {"b300_sxm", "blackwell", 103, 8e12},   {"gb300", "blackwell", 103, 8e12},
    {"rtx_pro_6000_server", "blackwell", 120, 1.6e12}};

// Nearest by generation, then by how far the memory bandwidths are apart.
const Donor& nearest_donor(const core::Hardware& hardware) {
  const auto distance = [&](const Donor& donor) {
    return std::tuple(donor.architecture != hardware.architecture, std::abs(donor.sm_version - hardware.sm_version),
                      std::abs(std::log(donor.memory_bytes_per_s / std::max(hardware.memory_bytes_per_s, 1.0))));
  };
  return *std::min_element(std::begin(kDonors), std::end(kDonors),
                           [&](const Donor& a, const Donor& b) { return distance(a) < distance(b); });
}

bool close(Dtype a, Dtype b) {
  const auto family = [](Dtype dtype) {
    if (dtype == Dtype::fp8 || dtype == Dtype::fp8_block || dtype == Dtype::int8) return 1;
    return dtype == Dtype::nvfp4 || dtype == Dtype::mxfp4 || dtype == Dtype::int4 ? 2 : 0;
  };
  return family(a) == family(b);
}

bool is_attention(OpKind kind) { return kind >= OpKind::prefill_attention && kind <= OpKind::sparse_mla; }

using Key = std::tuple<OpKind, Dtype, Dtype>;
struct Supply {
  int rank = 0;  // 0: the asked backend's, or the collectives every backend calls; 1: another backend's
  std::vector<const StoredSurface*> surfaces;
};

// How far `have` is from `want`, and the doubt that brings; infinite for another kind. Attention kernels differ little
// between arithmetic formats once the roofline is taken out, GEMMs a lot between widths of the weights.
std::pair<double, float> substitution(const Key& want, const Key& have, int rank) {
  if (std::get<0>(want) != std::get<0>(have)) return {std::numeric_limits<double>::infinity(), 0};
  double cost = 2.0 * rank;
  float doubt = rank > 0 ? kOtherBackend : 0;
  const Dtype a = std::get<1>(want), b = std::get<1>(have);
  if (a != b) {
    const bool near = close(a, b) || is_attention(std::get<0>(want)) || core::is_communication(std::get<0>(want));
    cost += near ? 1 : 5 + std::abs(std::log2(core::bytes_per_element(a) / core::bytes_per_element(b)));
    doubt += near ? kOtherFormat : kForeignFormat;
  }
  if (is_attention(std::get<0>(want)) && std::get<2>(want) != std::get<2>(have)) {
    cost += 1;
    doubt += kOtherFormat;
  }
  return {cost, doubt};
}

}  // namespace

size_t SurfaceSet::slot_index(OpKind kind, Dtype dtype, Dtype kv_dtype) {
  return (static_cast<size_t>(kind) * core::kDtypes + static_cast<size_t>(dtype)) * core::kDtypes +
         static_cast<size_t>(kv_dtype);
}

SurfaceSet::SurfaceSet(const Database& database, const core::Hardware& hardware, std::string_view backend) {
  std::vector<StoredSurface> stored = database.surfaces(hardware.name, "");
  if (stored.empty()) {
    const Donor& donor = nearest_donor(hardware);
    stored = database.surfaces(donor.name, "");
    if (!stored.empty()) borrowed_from_ = donor.name;
  }
  build(stored, backend);
}

void SurfaceSet::build(const std::vector<StoredSurface>& stored, std::string_view backend) {
  std::map<std::pair<Key, std::string>, Supply> supplies;
  for (const StoredSurface& surface : stored) {
    const bool own = surface.backend == backend;
    if (own) version_ = surface.version;
    Supply& supply = supplies[{{surface.kind, surface.dtype, surface.kv_dtype}, surface.backend}];
    supply.rank = own ? 0 : surface.backend == "nccl" ? 1 : 2;
    supply.surfaces.push_back(&surface);
  }
  std::map<const Supply*, int16_t> decoded;
  const float system_doubt = borrowed_from_.empty() ? 0 : kOtherSystem;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    const Key want{static_cast<OpKind>(slot / (core::kDtypes * core::kDtypes)),
                   static_cast<Dtype>(slot / core::kDtypes % core::kDtypes), static_cast<Dtype>(slot % core::kDtypes)};
    double least = std::numeric_limits<double>::infinity();
    const Supply* best = nullptr;
    for (const auto& [key, supply] : supplies) {
      const bool shared = key.second == "nccl";  // every engine calls NCCL: no substitute
      const auto [cost, doubt] = substitution(want, key.first, shared ? 0 : supply.rank);
      const size_t more = best ? best->surfaces.size() : 0;
      const double total = cost + (shared ? 0.5 : 0);
      if (total > least || (total == least && (std::isinf(total) || supply.surfaces.size() <= more))) continue;
      least = total;
      best = &supply;
      slots_[slot].doubt = doubt + system_doubt;
    }
    if (best == nullptr) continue;
    const auto [it, fresh] = decoded.try_emplace(best, static_cast<int16_t>(groups_.size()));
    slots_[slot].group = it->second;
    if (!fresh) continue;
    Group& group = groups_.emplace_back();
    for (const StoredSurface* surface : best->surfaces)
      group.entries.push_back({parse_variant(surface->variant),
                               decode(surface->body, surface->system + " " + surface->backend + " " +
                                                         std::string(core::name(surface->kind)))});
  }
}

Choice SurfaceSet::find(const core::Op& op) const {
  const Slot& slot = slots_[slot_index(op.kind, op.dtype, op.kv_dtype)];
  if (slot.group < 0) return {};
  const Variant want = variant(op);
  const Entry* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const Entry& entry : groups_[static_cast<size_t>(slot.group)].entries) {
    if (entry.variant == want) return {&entry.surface, slot.doubt, slot.doubt == 0, want};
    if (const double distance = variant_distance(entry.variant, want); distance < least) {
      least = distance;
      best = &entry;
    }
  }
  const float doubt = std::min(kPerVariantOctave * static_cast<float>(1 + least), kMostVariantDoubt);
  return {&best->surface, slot.doubt + doubt, false, best->variant};
}

}  // namespace drydock::perfdb
