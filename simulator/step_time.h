#pragma once
// How long one step of an engine takes: ops x kernel times, plus what a backend adds around them.
#include <vector>

#include "core/estimate.h"
#include "models/lowering.h"
#include "perfdb/kernel_times.h"
#include "simulator/backend_model.h"
#include "simulator/expert_load.h"

namespace drydock::simulator {

// A step of one pipeline stage, or of several in turn [us].
struct StepCost {
  double us = 0;
  double spread_us = 0;  // half-width of the 80 % band from the kernel times alone

  StepCost& operator+=(const StepCost& other);
  StepCost& operator*=(double factor);
};

// Prices batches of one model on one parallelism. Keeps references to its arguments; safe to ask from many threads,
// each with its own scratch.
class StepTimer {
 public:
  using Scratch = std::vector<models::LayerOp>;

  StepTimer(const models::Architecture& architecture, const models::Precision& precision,
            const models::Parallelism& parallelism, const perfdb::KernelTimes& times, const BackendModel& backend,
            const ExpertLoad* experts = nullptr);

  // Which ops of a step: under attention DP a rank's own work, and what all ranks do together (experts and the
  // communication around them), can be loaded differently.
  enum class Share { all, own, together };

  // Step of `batch` (one attention-DP rank's) on the given stage, without the host's share.
  StepCost stage(models::Batch batch, int stage, Scratch& scratch, Share share = Share::all) const;

  // Its kernels' time without spread, by what it depends on, as in a step without prompts [us].
  struct Parts {
    double own = 0;        // of a rank's own tokens, attention and output head aside
    double attention = 0;  // sees each sequence's context
    double head = 0;       // sees the sequences that get a token
    double experts = 0, shared_expert = 0;
    double exchange = 0;  // communication; of all ranks together
    double all() const { return own + attention + head + experts + shared_expert + exchange; }
  };
  Parts parts(models::Batch batch, int stage, Scratch& scratch) const;

  // What parts() adds up, before the backend's figures come in: the same under any of them.
  struct Term {
    models::Module module{};
    core::OpKind kind{};
    bool communicates = false;
    bool old_experts = false;          // block-scaled fp8 experts on Hopper
    double count = 0, latency_us = 0;  // launches, time of one alone
    double arithmetic = 0;             // share of arithmetic in the roofline's time
    double each = 0;                   // tokens of an expert
    double busiest = 1;                // busiest GPU's experts over the mean
  };
  using Terms = std::vector<Term>;
  void terms(models::Batch batch, int stage, Scratch& scratch, Terms& out) const;
  Parts priced(const Terms& terms) const;

  // Time of one op as the backend runs it; `count` launches. Routed experts take as long as the busiest GPU's.
  double scale(const core::Op& op) const;

  int stages() const { return lowering_.stages(); }
  const models::Lowering& lowering() const { return lowering_; }
  const perfdb::KernelTimes& times() const { return *times_; }
  const BackendModel& backend() const { return *backend_; }

 private:
  double scale(core::OpKind kind) const;
  double scale(const Term& term) const;
  Term term_of(const core::Op& op) const;

  models::Lowering lowering_;
  const perfdb::KernelTimes* times_;
  const BackendModel* backend_;
  const ExpertLoad* experts_;  // nullptr: evenly loaded
};

}  // namespace drydock::simulator
