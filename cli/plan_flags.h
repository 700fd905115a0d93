#pragma once
// The flags that say how a plan decodes and how its experts are loaded, shared by all commands that predict.
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "models/architecture.h"

namespace drydock::cli {

// Of a load's flags; more is taken for a mistake.
inline constexpr int64_t kMostInFlight = 10'000'000;
inline constexpr double kMostRate = 1e7, kLeastRate = 1e-4;  // requests/s

// As typed; checked when the command runs.
struct PlanFlags {
  std::string speculative, expert_skew, expert_histogram, expert_slots;

  bool any() const { return !(speculative + expert_skew + expert_histogram + expert_slots).empty(); }
};

// `otherwise`: what holds without the flag, for the help.
void add_plan_flags(CLI::App& command, PlanFlags& flags, const char* otherwise, const char* group = nullptr);

// Puts what was given in place of what is there. Throws core::Error naming the flag, or `origin` and the field of it
// that was there already, when it is not possible for the model.
void apply(const PlanFlags& flags, const models::Architecture& architecture, const std::string& origin,
           std::string& speculative, models::Experts& experts);

// Writes expert_placement.json, of the pool that decodes, and expert_placement_prefill.json where prefill is apart.
// Those of an earlier plan go.
void write_placements(const std::vector<std::pair<models::Role, std::string>>& placements, const std::string& dir);

}  // namespace drydock::cli
