#pragma once
// A plan's engines, simulated over the grid that Dynamo's planner interpolates in.
#include "configurator/resources.h"
#include "generators/planner_profile.h"
#include "models/plan.h"

namespace drydock::cli {

// Prompts alone at lengths from 64 to the larger of 8192 and four times the plan's, no prefix cached; token times at
// six contexts up to twice the plan's longest, each from one sequence a rank to as many as fit and the plan allows.
// Throws core::Error when the plan's engines are not possible.
generators::PlannerProfile planner_profile(const models::Plan& plan, configurator::Resources& resources);

}  // namespace drydock::cli
