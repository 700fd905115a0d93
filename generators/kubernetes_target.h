#pragma once
// Plain Kubernetes for the bundled runtime: one router, the workers of each pool, and what watches over them.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kKubernetes;

}  // namespace drydock::generators
