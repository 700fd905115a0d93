#pragma once
// The number formats of a checkpoint from what it says about its quantization; a part of the config reader.
#include "core/json.h"
#include "models/architecture.h"

namespace drydock::models {

// `quantization_config` of a config.json: block or tensor fp8, OpenAI's MXFP4, compressed-tensors, ModelOpt, Quark,
// AWQ, GPTQ. Throws core::Error naming the field that is missing or not understood.
Precision read_quantization_config(const core::Fields& quantization);

// ModelOpt's hf_quant_config.json. Throws the same.
Precision read_modelopt(const core::Fields& file);

}  // namespace drydock::models
