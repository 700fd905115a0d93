#pragma once
// Simulations for people and for scripts.
#include <string>
#include <vector>

#include "cli/simulation_run.h"

namespace drydock::cli {

void print_stage(const Stage& stage, const simulator::Summary& summary);
void print_summary(const Stage& stage, const simulator::Summary& summary);
// What failures changed.
void print_change(const simulator::Summary& without, const simulator::Summary& with);

// Plan, load, targets and figures.
core::Json stage_json(const Stage& stage, const simulator::Summary& summary);
core::Json change_json(const simulator::Summary& without, const simulator::Summary& with);

// One column a plan, the best of each row marked.
struct Compared {
  std::string name;
  const Stage* stage = nullptr;
  simulator::Summary summary;
};
void print_compared(const std::vector<Compared>& plans);

std::string plan_text(const models::Plan& plan);

}  // namespace drydock::cli
