#pragma once
// A machine as `--system` reads it.
#include <string>

#include "models/system.h"

namespace drydock::profiler {

std::string to_json(const models::System& system);

}  // namespace drydock::profiler
