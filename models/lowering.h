#pragma once
// From a model, its parallelism and the batch of one step to the ops one GPU launches.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/op.h"
#include "models/architecture.h"
#include "models/plan.h"
#include "models/system.h"

namespace drydock::models {

// Sequences alike in one step of one attention-DP rank.
struct BatchPart {
  double sequences = 0;    // may be fractional: an average over steps
  int64_t new_tokens = 0;  // each brings to this step; in decode 1, or drafts to verify and one more
  int64_t context = 0;     // tokens already in its KV cache
  bool emits = true;       // false: a prompt chunk that is not the last
  bool is_decode = false;
};
using Batch = std::span<const BatchPart>;

// What part of a layer an op belongs to, for breakdowns and for overlap.
enum class Module : uint8_t {
  embedding,
  norm,
  qkv,
  attention,
  attention_out,
  ffn,
  router,
  experts,
  shared_expert,
  head,
  communication
};
inline constexpr int kModules = 11;
std::string_view name(Module module);

struct LayerOp {
  core::Op op;
  double count = 0;  // launches in one step on one GPU
  Module module{};
};

// One model on one parallelism, ready to lower many batches. Keeps a pointer to `architecture`.
class Lowering {
 public:
  Lowering(const Architecture& architecture, const Precision& precision, const Parallelism& parallelism);

  // Replaces `ops` by what GPU 0 of pipeline stage `stage` launches in one step of `batch`, which is one attention-DP
  // rank's; the other ranks are taken to be loaded alike. Equal ops are merged. Embedding belongs to the first stage,
  // the output head and sampling to the last.
  void lower(Batch batch, int stage, std::vector<LayerOp>& ops) const;

  int stages() const { return parallelism_.pp; }
  int64_t stage_layers(int stage) const;   // layers of the stage
  int64_t latent_layers(int stage) const;  // of these, with latent attention

 private:
  const Architecture* architecture_;
  Precision precision_;
  Parallelism parallelism_;
  std::vector<std::vector<int64_t>> stage_kind_counts_;  // [stage][kind] layers
};

// Why `parallelism` can't run the model, one line; nullopt when it can.
std::optional<std::string> why_illegal(const Architecture& architecture, const Precision& precision,
                                       const Parallelism& parallelism);

// Memory of the fullest GPU of a pipeline stage [bytes].
struct StageMemory {
  double weights = 0;
  double kv_per_token = 0;        // per token of one attention-DP rank, averaged over a long sequence
  double state_per_sequence = 0;  // recurrent state and KV that does not grow (sliding window at its full length)
  double activations = 0;         // peak, for max_tokens in one step
  double communication = 0;       // collective buffers
  double runtime = 0;             // CUDA context, graphs, allocator
  double fixed() const { return weights + activations + communication + runtime; }
};
// `expert_copies`: slots for routed experts over their number; more than 1 with redundant ones.
StageMemory stage_memory(const Architecture& architecture, const Precision& precision, const Parallelism& parallelism,
                         int stage, int64_t max_tokens, double expert_copies = 1);

// KV bytes of one sequence of `context` tokens on one GPU of the stage, windows and recurrent state respected.
double sequence_kv_bytes(const Architecture& architecture, const Precision& precision, const Parallelism& parallelism,
                         int stage, double context);

}  // namespace drydock::models
