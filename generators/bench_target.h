#pragma once
// The load test that would confirm a prediction, by the engine's own client, and its result as a row of points.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kBench;

}  // namespace drydock::generators
