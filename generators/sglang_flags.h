#pragma once
// `sglang.launch_server`'s flags for one pool of a plan. Sources: sglang/srt/server_args.py and arg_groups/fields of
// releases 0.5.9 to 0.5.23; tests/data/engine_flags lists the names.
#include "generators/engine_version.h"
#include "generators/flags.h"

namespace drydock::generators {

// As vllm_flags(). Limits are those of the whole instance, which SGLang divides among its attention-DP ranks.
Flags sglang_flags(const Request& request, const models::Pool& pool);

}  // namespace drydock::generators
