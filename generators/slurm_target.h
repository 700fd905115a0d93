#pragma once
// A batch job that runs the whole plan: a step for each instance, and one for the router.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kSlurm;

}  // namespace drydock::generators
