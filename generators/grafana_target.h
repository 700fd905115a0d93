#pragma once
// A dashboard of what users feel and what workers do, with the plan's targets as lines.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kGrafana;

}  // namespace drydock::generators
