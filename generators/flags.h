#pragma once
// An engine's command line as data: for a shell script, for a container's arguments, or for the engine's YAML.
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace drydock::generators {

struct Flag {
  std::string name;         // "--tp-size"
  core::Json value = true;  // true: the flag alone; text and numbers: one word; an array: a word each; an object: JSON
  bool variable = false;    // `value` is the name of a shell variable
};
using Flags = std::vector<Flag>;

// The words of one flag's value, none for true; objects as compact JSON.
std::vector<std::string> value_words(const core::Json& value);
// All words, names and values, for an argument list. Variables are written "$(NAME)", as Kubernetes expands them.
std::vector<std::string> words(const Flags& flags);
// "program \" and a line for each flag, values quoted, variables as "$NAME"; `program` is taken as it is.
std::string command_text(std::string_view program, const Flags& flags, std::string_view indent = "  ");
// {"tp-size": 8, ...}, for engines that read their flags from YAML; objects as JSON texts, as older vLLM takes nothing
// nested. Variables are left out.
core::Json flags_json(const Flags& flags);

}  // namespace drydock::generators
