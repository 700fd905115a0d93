#pragma once
// A Helm chart for Triton Inference Server with TensorRT-LLM's LLM API: templates that hold nothing of the plan, and
// values that hold all of it.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kTriton;

}  // namespace drydock::generators
