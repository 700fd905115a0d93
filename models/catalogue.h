#pragma once
// Models and systems by name: shipped facts, a folder of the user's, or a file.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "models/architecture.h"
#include "models/system.h"

namespace drydock::models {

// The folder of shipped facts: `models/` and `systems/` lie in it, and the performance database.
// $DRYDOCK_DATA if set, else `../share/drydock` beside the running executable.
// Throws core::Error naming both when neither is a folder.
std::filesystem::path data_dir();

// Reads a config.json of the Hugging Face form; looks for hf_quant_config.json beside it.
// Unknown model_type with fields of a known pattern: accepted, with a warning. Throws core::Error naming the field.
Architecture read_config(const std::filesystem::path& config_json);
// The same from text; `origin` names the source in errors. `quant_json` may be empty.
Architecture parse_config(std::string_view config_json, std::string_view quant_json, std::string_view origin);

// `model`: a name as people type it ("Qwen/Qwen3-32B", "qwen3-32b", "nvidia/DeepSeek-R1-NVFP4"), a folder with a
// config.json, or a config.json. Throws core::Error suggesting the nearest known name.
Architecture find_model(std::string_view model);

// `system`: a shipped name ("h200_sxm") or the path of a system JSON. Throws core::Error suggesting the nearest.
System find_system(std::string_view system);

std::vector<std::string> model_names();   // canonical names, sorted
std::vector<std::string> system_names();  // sorted

// Replaces the published formats by what engines deploy when asked for `precision`: "bf16", "fp8", "fp8_block", "nvfp4"
// ("fp4"), "mxfp4", "int4", "int8", or "auto" for the published ones. docs/models.md has the rules: which fp8, what a
// 4-bit checkpoint leaves in bf16. `kv` overrides the KV format ("auto": fp8 with NVFP4 weights or where the checkpoint
// says so, else bf16). Throws core::Error naming the value and what would be right.
Precision choose_precision(const Architecture& architecture, std::string_view precision, std::string_view kv = "auto");

}  // namespace drydock::models
