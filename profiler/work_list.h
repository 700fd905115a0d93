#pragma once
// Which ops the plans of a search can ask for, in families that one model of times covers.
#include <cstdint>
#include <string>
#include <vector>

#include "core/hardware.h"
#include "core/op.h"
#include "models/architecture.h"
#include "models/plan.h"
#include "models/system.h"
#include "perfdb/features.h"

namespace drydock::profiler {

// Ops of one surface of the database: what varies inside are the extents that `axes` gives.
struct FamilyKey {
  core::OpKind kind{};
  core::Dtype dtype{}, kv_dtype{};
  perfdb::Variant variant{};

  auto operator<=>(const FamilyKey&) const = default;
};
FamilyKey family_of(const core::Op& op);
std::string name(const FamilyKey& key);  // "decode_attention bf16+fp8 128,0,0"

// Where an op lies in its family: the coordinates of perfdb/features.h, but for prompts log2 of the new tokens in place
// of the context before them; for kinds that have none there, log2 of what their time depends on.
std::vector<double> axes(const core::Op& op);

struct Candidate {
  core::Op op;
  double weight = 0;  // its share of the time of all steps considered, by the baseline; sums to 1 over a work list
};

struct Family {
  FamilyKey key;
  std::vector<Candidate> candidates;  // in the order of Op

  double weight() const;
};

// One model on one engine instance.
struct Deployment {
  const models::Architecture* architecture = nullptr;
  models::Precision precision;
  models::Parallelism parallelism;
};

// How far plans go. Every extent is >= 1.
struct Ranges {
  int64_t most_tokens = 8192;    // of one step
  int64_t most_context = 32768;  // of one sequence
  int64_t most_batch = 256;      // sequences in one step
};

struct Sizes {
  std::vector<int> tp{1}, pp{1}, dp{1};
  std::vector<int> ep;  // empty: 1 and all ranks of the instance
};

// All legal deployments of `architecture` over `sizes` that fit the memory of `system`. `reasons` gets a line for each
// that is not.
std::vector<Deployment> deployments(const models::Architecture& architecture, const models::Precision& precision,
                                    const Sizes& sizes, const models::System& system,
                                    std::vector<std::string>& reasons);

// Ops of decode and prompt steps over grids of batch, context, chunk and cached tokens: 1, 2, 3, 4, 6, 8, 12 and so on.
// Families ordered by key; ops that move nothing are left out.
std::vector<Family> work_list(const std::vector<Deployment>& deployments, const Ranges& ranges,
                              const models::System& system);

// 1, 2, 3, 4, 6, 8, 12, 16 ... up to `most`, and `most`.
std::vector<int64_t> extents(int64_t least, int64_t most);

}  // namespace drydock::profiler
