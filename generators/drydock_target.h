#pragma once
// The bundled runtime's files: its configuration, and how its router and workers are started.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kDrydock;

}  // namespace drydock::generators
