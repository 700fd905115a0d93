#pragma once
// `vllm serve`'s flags for one pool of a plan. Sources: vllm/engine/arg_utils.py and vllm/config of releases 0.15 to
// 0.33; tests/data/engine_flags lists the names.
#include "generators/engine_version.h"
#include "generators/flags.h"

namespace drydock::generators {

// What holds for every instance of the pool; addresses, ports and ranks of nodes are the launcher's. Throws core::Error
// when vLLM can't run the pool, with the reason.
Flags vllm_flags(const Request& request, const models::Pool& pool);

}  // namespace drydock::generators
