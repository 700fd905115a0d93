#pragma once
// What a report says of plans beyond their figures: how users' times spread, and which assumption moves the answer.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "configurator/search.h"

namespace drydock::configurator {

// Times of a plan's requests: element i of each is the quantile i / kQuantiles [ms].
inline constexpr int kQuantiles = 100;
struct Felt {
  int64_t requests = 0;
  std::vector<double> ttft_ms, tpot_ms, latency_ms;
};
// Simulates the plan's own workload to the end, as the search does. nullopt: the rate is more than it can serve.
// Throws core::Error as predict() does.
std::optional<Felt> felt(const models::Plan& plan, Resources& resources);

// One plan under a changed assumption.
struct Moved {
  std::optional<models::Prediction> as_deployed;  // nullopt: does not fit, or can't keep up
  bool meets = false;                             // the targets, as deployed
  // With the batch limit that the change calls for: about the largest within the targets. Where rate or concurrency is
  // given, or no target, the limit stays, and this is the plan as deployed if it meets. nullopt: no limit tried did.
  std::optional<models::Prediction> retuned;
  int64_t max_batch = 0;  // of the pool that decodes, when retuned
};

// An assumption changed, and what that does to each plan. The first one of a study changes nothing.
struct Change {
  std::string assumption;    // "kernel times", "prompt length"; empty: none
  std::string change;        // "+10 %", "30 % to 40 %"
  int direction = 0;         // +1 and -1 are the two sides of one assumption
  std::vector<Moved> plans;  // as given
  int best = -1;             // of the plans that meet the targets when retuned; -1: none does
};

// Plans in the order of an answer, all for one question. `goal` says which is best. Kernel times (all, and each
// family), host time, cached share, lengths, load, acceptance of drafts and expert skew are moved, as far as the
// question has them. Nothing else may ask `resources` meanwhile.
std::vector<Change> sensitivity(const std::vector<models::Plan>& plans, Goal goal, Resources& resources);

}  // namespace drydock::configurator
