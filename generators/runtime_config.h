#pragma once
// The bundled runtime's configuration, made from a plan. Schema: docs/schema/runtime.schema.json.
#include <string>

#include "models/plan.h"

namespace drydock::generators {

// What the runtime does the steps with.
enum class EngineKind { emulated, cpu, cuda };

// JSON text; equal plans give equal text.
std::string runtime_config(const models::Plan& plan, EngineKind engine = EngineKind::emulated);

}  // namespace drydock::generators
