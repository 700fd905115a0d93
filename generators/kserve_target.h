#pragma once
// KServe: an InferenceService (v1beta1) that runs the engine in a container of its own, or, for vLLM in prefill and
// decode apart or over several nodes, an LLMInferenceService (v1alpha1) with its router.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kKserve;

}  // namespace drydock::generators
