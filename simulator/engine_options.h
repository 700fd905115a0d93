#pragma once
// What an engine does beyond plain decoding of evenly loaded experts: the parts of a plan that few deployments use.
#include <memory>
#include <optional>
#include <string>

#include "models/architecture.h"
#include "models/plan.h"
#include "scheduler/speculation.h"
#include "simulator/expert_load.h"

namespace drydock::simulator {

struct EngineOptions {
  std::optional<scheduler::Speculation> speculation;
  std::shared_ptr<const ExpertLoad> experts;  // nullptr: evenly loaded
  double expert_copies = 1;                   // slots over experts; 1 also where experts are not spread
  // Seen by the event simulator's step prices; the closed forms ignore both.
  bool two_batch_overlap = false, shared_expert_overlap = false;
  bool remembers = false;     // what Engine::reprice() needs to be quick
  models::PromptWaits waits;  // likewise; not of decode pools, where prompts are computed elsewhere

  int64_t decode_tokens() const { return speculation ? 1 + speculation->drafts() : 1; }      // of a sequence in a step
  double decode_growth() const { return speculation ? speculation->expected_tokens() : 1; }  // of these, to keep
};

// Reads a plan's `speculative`; nullopt when it is empty. Throws core::Error starting with `where` when it does not
// parse or asks for multi-token prediction of a model without such layers.
std::optional<scheduler::Speculation> speculation_of(const std::string& text, const models::Architecture& architecture,
                                                     const std::string& where);

// Those of an engine in the given role, which decodes unless it is prefill. `experts` as expert_load() made them for
// it.
EngineOptions engine_options(const std::optional<scheduler::Speculation>& speculation,
                             std::shared_ptr<const ExpertLoad> experts, models::Role role);

// What drafting adds to a step, in passes: over all layers of the stage that sets the pace, and over the output head.
// MTP and EAGLE: one average layer and the head for each draft. A draft model: a twentieth of the target for each
// draft. N-grams: nothing.
struct DraftPasses {
  double layers = 0, heads = 0;
};
DraftPasses draft_passes(const scheduler::Speculation& speculation, int64_t stage_layers);

}  // namespace drydock::simulator
