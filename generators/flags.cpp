#include "generators/flags.h"

#include "generators/text.h"

namespace drydock::generators {

using core::Json;

std::vector<std::string> value_words(const Json& value) {
  if (value.is_boolean()) return {};
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_array()) return {value.dump(-1, ' ', false, Json::error_handler_t::replace)};
  std::vector<std::string> out;
  for (const Json& item : value)
    for (std::string& word : value_words(item)) out.push_back(std::move(word));
  return out;
}

std::vector<std::string> words(const Flags& flags) {
  std::vector<std::string> out;
  for (const Flag& flag : flags) {
    out.push_back(flag.name);
    for (std::string& word : value_words(flag.value))
      out.push_back(flag.variable ? "$(" + word + ")" : std::move(word));
  }
  return out;
}

std::string command_text(std::string_view program, const Flags& flags, std::string_view indent) {
  std::string out(program);
  for (const Flag& flag : flags) {
    out += " \\\n" + std::string(indent) + flag.name;
    for (const std::string& word : value_words(flag.value))
      out += " " + (flag.variable ? "\"$" + word + "\"" : shell_word(word));
  }
  return out + "\n";
}

Json flags_json(const Flags& flags) {
  Json out = Json::object();
  for (const Flag& flag : flags)
    if (!flag.variable)
      out[flag.name.substr(2)] = flag.value.is_object() ? Json(value_words(flag.value).front()) : flag.value;
  return out;
}

}  // namespace drydock::generators
