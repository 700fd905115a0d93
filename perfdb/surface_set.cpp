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
constexpr float kOtherSystem = 0.20f;  // same compute capability, over its own roofline
constexpr float kOtherGeneration = 0.70f;
constexpr float kOtherBackend = 0.30f;     // same GPU, another engine's kernels
constexpr float kCloseFormat = 0.25f;      // fp8 for fp8_block
constexpr float kAttentionFormat = 0.10f;  // attention and communication differ little once the roofline is out
constexpr float kForeignFormat = 0.40f;
constexpr float kPerVariantOctave = 0.12f, kMostVariantDoubt = 0.5f;

// Systems with shipped tables, as a system without any is to find the one most like it.
struct Donor {
  const char* name;
  const char* architecture;
  int sm_version;
  double memory_bytes_per_s;
};
constexpr Donor kDonors[] = {{"a100_sxm", "ampere", 80, 2.04e12},
                             {"l40s", "ada", 89, 0.86e12},
                             {"h100_sxm", "hopper", 90, 3.35e12},
                             {"h200_sxm", "hopper", 90, 4.8e12},
                             {"b200_sxm", "blackwell", 100, 8e12},
                             {"gb200", "blackwell", 100, 8e12},
                             {"b300_sxm", "blackwell", 103, 8e12},
                             {"gb300", "blackwell", 103, 8e12},
                             {"rtx_pro_6000_server", "blackwell", 120, 1.6e12}};

// Nearest first: by generation, then by how far the memory bandwidths are apart.
std::vector<Donor> nearest_donors(const core::Hardware& hardware) {
  const auto distance = [&](const Donor& donor) {
    return std::tuple(donor.architecture != hardware.architecture, std::abs(donor.sm_version - hardware.sm_version),
                      std::abs(std::log(donor.memory_bytes_per_s / std::max(hardware.memory_bytes_per_s, 1.0))));
  };
  std::vector<Donor> donors(std::begin(kDonors), std::end(kDonors));
  std::stable_sort(donors.begin(), donors.end(),
                   [&](const Donor& a, const Donor& b) { return distance(a) < distance(b); });
  return donors;
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

struct Supply {  // the surfaces of one kind, pair of formats and backend
  Key key;
  bool own = false;
  std::vector<StoredSurface*> surfaces;
};

struct Substitution {
  double cost = 0;  // the least is taken
  float doubt = 0;
};

bool always_near(OpKind kind) { return is_attention(kind) || core::is_communication(kind); }

// Every engine calls NCCL for these; its all-reduce competes with the engines' own.
bool shared(OpKind kind, std::string_view backend) { return backend == "nccl" && kind != OpKind::all_reduce; }

// What it takes to answer for formats `dtype` and `kv_dtype` with `supply`, which is of the kind asked for. A format of
// one's own that is close comes before another backend's, a format of another width after.
Substitution substitution(Dtype dtype, Dtype kv_dtype, const Supply& supply) {
  const auto& [kind, have, have_kv] = supply.key;
  Substitution out;
  if (!supply.own) out = {3, kOtherBackend};
  if (dtype != have && ignores_arithmetic(kind)) {
    out.cost += 0.5;
  } else if (dtype != have && always_near(kind)) {
    out.cost += 1;
    out.doubt += kAttentionFormat;
  } else if (dtype != have) {
    const double octaves = std::abs(std::log2(core::bytes_per_element(dtype) / core::bytes_per_element(have)));
    out.cost += close(dtype, have) ? 1 + octaves : 8 + octaves;
    out.doubt += close(dtype, have) ? kCloseFormat : kForeignFormat;
  }
  if (is_attention(kind) && kv_dtype != have_kv) {
    out.cost += 1;
    out.doubt += kAttentionFormat;
  }
  return out;
}

std::vector<Supply> supplies_of(std::vector<StoredSurface>& stored, std::string_view backend) {
  std::map<std::pair<Key, std::string>, Supply> found;
  for (StoredSurface& surface : stored) {
    const Key key{surface.kind, surface.dtype, surface.kv_dtype};
    Supply& supply = found[{key, surface.backend}];
    supply.key = key;
    supply.own = surface.backend == backend || shared(surface.kind, surface.backend);
    supply.surfaces.push_back(&surface);
  }
  std::vector<Supply> out;
  for (auto& [key, supply] : found) out.push_back(std::move(supply));
  return out;
}

}  // namespace

size_t SurfaceSet::slot_index(OpKind kind, Dtype dtype, Dtype kv_dtype) {
  return (static_cast<size_t>(kind) * core::kDtypes + static_cast<size_t>(dtype)) * core::kDtypes +
         static_cast<size_t>(kv_dtype);
}

SurfaceSet::SurfaceSet(const Database& database, const core::Hardware& hardware, std::string_view backend) {
  std::vector<StoredSurface> stored = database.surfaces(hardware.name, "");
  float doubt = 0;
  if (stored.empty())
    for (const Donor& donor : nearest_donors(hardware)) {
      stored = database.surfaces(donor.name, "");
      if (stored.empty()) continue;
      borrowed_from_ = donor.name;
      doubt = donor.sm_version == hardware.sm_version ? kOtherSystem : kOtherGeneration;
      break;
    }
  build(stored, backend, doubt);
}

void SurfaceSet::build(std::vector<StoredSurface>& stored, std::string_view backend, float doubt) {
  for (const StoredSurface& surface : stored)
    if (surface.backend == backend) version_ = surface.version;
  const std::vector<Supply> supplies = supplies_of(stored, backend);
  std::vector<int16_t> decoded(supplies.size(), -1);
  for (size_t i = 0; i < slots_.size(); ++i) {
    const auto kind = static_cast<OpKind>(i / (core::kDtypes * core::kDtypes));
    const auto dtype = static_cast<Dtype>(i / core::kDtypes % core::kDtypes),
               kv_dtype = static_cast<Dtype>(i % core::kDtypes);
    std::optional<size_t> best;
    Substitution least;
    for (size_t s = 0; s < supplies.size(); ++s) {
      if (std::get<0>(supplies[s].key) != kind) continue;
      const Substitution offer = substitution(dtype, kv_dtype, supplies[s]);
      const bool better = !best || offer.cost < least.cost ||
                          (offer.cost == least.cost && supplies[s].surfaces.size() > supplies[*best].surfaces.size());
      if (!better) continue;
      best = s;
      least = offer;
    }
    if (!best) continue;
    if (decoded[*best] < 0) decoded[*best] = add_group(supplies[*best].surfaces);
    slots_[i] = {decoded[*best], least.doubt + doubt};
  }
}

int16_t SurfaceSet::add_group(const std::vector<StoredSurface*>& surfaces) {
  Group& group = groups_.emplace_back();
  for (StoredSurface* stored : surfaces)
    group.entries.push_back(std::make_unique<Entry>(parse_variant(stored->variant), std::move(stored->body),
                                                    "surface of " + stored->system + " " + stored->backend));
  return static_cast<int16_t>(groups_.size() - 1);
}

const Surface& SurfaceSet::Entry::surface() {
  std::call_once(decoded_, [this] {
    surface_ = decode(body_, origin_);
    std::string().swap(body_);
  });
  return surface_;
}

Choice SurfaceSet::find(const core::Op& op) const {
  const Slot& slot = slots_[slot_index(op.kind, op.dtype, op.kv_dtype)];
  if (slot.group < 0) return {};
  const Variant want = variant(op);
  Entry* best = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const auto& entry : groups_[static_cast<size_t>(slot.group)].entries) {
    if (entry->variant == want) return {&entry->surface(), slot.doubt, slot.doubt == 0, want};
    if (const double distance = variant_distance(entry->variant, want); distance < least) {
      least = distance;
      best = entry.get();
    }
  }
  const float doubt = std::min(kPerVariantOctave * static_cast<float>(1 + least), kMostVariantDoubt);
  return {&best->surface(), slot.doubt + doubt, false, best->variant};
}

}  // namespace drydock::perfdb
