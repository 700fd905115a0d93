#pragma once
// llm-d: values for its Helm chart llm-d-modelservice, which runs vLLM. Source of the keys: the chart's values.yaml and
// templates/_helpers.tpl, release 0.4.
#include "generators/target.h"

namespace drydock::generators {

extern const Target kLlmd;

}  // namespace drydock::generators
