#pragma once
// The layers of a model from the fields of its config.json; a part of the config reader.
#include <string>

#include "core/json.h"
#include "models/architecture.h"

namespace drydock::models {

// Fills `kinds` and `layer_kinds`. Which attention and feed-forward a layer has is told by which fields are there, not
// by model_type. Throws core::Error naming the missing or impossible field.
void read_layers(const core::Fields& fields, Architecture& architecture);

// "dense GQA", "MoE with MLA" ...
std::string family_name(const Architecture& architecture);

}  // namespace drydock::models
