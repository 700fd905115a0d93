#pragma once
// From a design's models to the surfaces that perfdb::KernelTimes reads.
#include <string>
#include <vector>

#include "perfdb/database.h"
#include "profiler/design.h"

namespace drydock::profiler {

// Surfaces of `backend` on `hardware.name` for every family with enough points: perfdb::fit_surfaces over what was
// measured and what the model says of the other candidates. Their bands hold 80 % of what the model expects to be off,
// not of how well the lattice repeats the model.
std::vector<perfdb::StoredSurface> surfaces_of(const Design& design, const core::Hardware& hardware,
                                               const std::string& backend, const std::string& version);

}  // namespace drydock::profiler
