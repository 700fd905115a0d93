#pragma once
// TensorRT-LLM's options for one pool of a plan: the YAML of `trtllm-serve --extra_llm_api_options`. Sources:
// tensorrt_llm/llmapi/llm_args.py and commands/serve.py as of releases 1.1 and 1.2, PyTorch backend.
#include "core/json.h"
#include "generators/engine_version.h"
#include "generators/flags.h"

namespace drydock::generators {

// Flags of trtllm-serve; those that both it and the YAML take are here. As vllm_flags().
Flags trtllm_flags(const Request& request, const models::Pool& pool);
core::Json trtllm_options(const Request& request, const models::Pool& pool);

}  // namespace drydock::generators
