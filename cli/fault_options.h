#pragma once
// --fail, --slow and --mtbf: what goes wrong in a simulation.
#include <string>
#include <vector>

#include "cli/load_options.h"
#include "models/plan.h"
#include "simulator/simulation.h"

namespace drydock::cli {

// Time until a new worker of each pool serves: --start-up, or its GPUs' weights read at 2 GB/s.
std::vector<double> start_up_us(const LoadOptions& options, const simulator::Deployment& deployment);

// Those given and random ones of `seed`. Throws core::Error naming the flag and, of an unknown worker, what there is.
std::vector<simulator::Failure> faults(const LoadOptions& options, const models::Plan& plan,
                                       const std::vector<double>& start_up_us, uint64_t seed);

bool any_faults(const LoadOptions& options);

}  // namespace drydock::cli
