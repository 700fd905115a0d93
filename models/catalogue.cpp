#include "models/catalogue.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/text.h"

namespace drydock::models {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> json_files(const fs::path& dir) {
  std::vector<fs::path> files;
  std::error_code status;
  for (const auto& entry : fs::directory_iterator(dir, status))
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  if (status) throw core::Error(dir.string() + ": can't be listed: " + status.message());
  std::sort(files.begin(), files.end());
  return files;
}

// "Qwen/Qwen3-32B" and "qwen3_32b" are the same name: case, the organisation and punctuation don't count.
std::string folded(std::string_view name) {
  name.remove_prefix(name.rfind('/') == std::string_view::npos ? 0 : name.rfind('/') + 1);
  std::string out = core::lower_case(name);
  std::erase_if(out, [](char c) { return c == '-' || c == '_' || c == ' ' || c == '.'; });
  return out;
}

// The part of a shipped model's file that its names are in: {"names": [...], "variants": [{"names": [...]}, ...]}.
struct Variant {
  std::vector<std::string> names;
  std::string precision = "auto";
};

std::vector<std::string> texts(const core::Fields& f, std::string_view field) {
  std::vector<std::string> out;
  for (const core::Json& item : f.array(field)) {
    if (!item.is_string()) throw f.error(field, "want strings");
    out.push_back(item.get<std::string>());
  }
  return out;
}

std::vector<Variant> variants_of(const core::Fields& f) {
  std::vector<Variant> out{{texts(f, "names"), "auto"}};
  if (out.front().names.empty()) throw f.error("names", "want at least one");
  if (!f.has("variants")) return out;
  const core::Json& list = f.array("variants");
  for (size_t i = 0; i < list.size(); ++i) {
    const core::Fields v(list[i], f.origin(), "variants[" + std::to_string(i) + "]");
    out.push_back({texts(v, "names"), v.text("precision")});
  }
  return out;
}

// A cheap test that spares parsing the files of other models: the folded name occurs before the config does.
bool may_hold(std::string_view content, std::string_view folded_name) {
  std::string head = core::lower_case(content.substr(0, content.find("\"config\"")));
  std::erase_if(head, [](char c) { return c == '-' || c == '_' || c == ' ' || c == '.'; });
  return head.find(folded_name) != std::string::npos;
}

Architecture from_catalogue(const core::Fields& f, const Variant& variant, const std::string& as_typed_name) {
  Architecture a = parse_config(f.require("config").dump(), "", f.origin() + " (config)");
  a.name = as_typed_name;
  a.precision = choose_precision(a, variant.precision);
  return a;
}

std::optional<Architecture> find_shipped(std::string_view model) {
  const std::string wanted = folded(model);
  for (const fs::path& file : json_files(data_dir() / "models")) {
    const std::string content = core::read_file(file, core::kMaxJsonBytes);
    if (wanted.empty() || !may_hold(content, wanted)) continue;
    const core::Json document = core::parse_json(content, file.string());
    const core::Fields f(document, file.string());
    for (const Variant& variant : variants_of(f))
      for (const std::string& name : variant.names)
        if (folded(name) == wanted) return from_catalogue(f, variant, variant.names.front());
  }
  return std::nullopt;
}

bool is_file(const fs::path& path) {
  std::error_code status;
  return fs::is_regular_file(path, status);
}

std::vector<std::string> every_model_name() {
  std::vector<std::string> names;
  for (const fs::path& file : json_files(data_dir() / "models")) {
    const core::Json document = core::read_json(file);
    for (const Variant& variant : variants_of(core::Fields(document, file.string())))
      names.insert(names.end(), variant.names.begin(), variant.names.end());
  }
  return names;
}

}  // namespace

fs::path data_dir() {
  std::error_code status;
  if (const char* set = std::getenv("DRYDOCK_DATA"); set && *set) {
    if (fs::is_directory(set, status)) return set;
    throw core::Error("DRYDOCK_DATA=" + std::string(set).substr(0, 200) + ": is no folder; want the one that holds models/ and systems/");
  }
  const fs::path beside = fs::read_symlink("/proc/self/exe", status).parent_path() / ".." / "share" / "drydock";
  if (fs::is_directory(beside, status)) return beside.lexically_normal();
  throw core::Error("no data folder at " + beside.lexically_normal().string() + "; install drydock whole, or set DRYDOCK_DATA");
}

Architecture read_config(const fs::path& config_json) {
  const fs::path quant = config_json.parent_path() / "hf_quant_config.json";
  const std::string quant_text = is_file(quant) ? core::read_file(quant, core::kMaxJsonBytes) : "";
  Architecture a = parse_config(core::read_file(config_json, core::kMaxJsonBytes), quant_text, config_json.string());
  if (a.name.empty()) a.name = config_json.parent_path().filename().string();
  if (a.name.empty()) a.name = a.model_type;
  return a;
}

Architecture find_model(std::string_view model) {
  if (model.empty() || model.size() > 4096) throw core::Error("model: want a name, a folder with a config.json, or a config.json");
  const fs::path path{std::string(model)};
  if (is_file(path / "config.json")) return read_config(path / "config.json");
  if (is_file(path)) return read_config(path);
  if (auto found = find_shipped(model)) return *std::move(found);
  throw core::Error("model '" + std::string(model.substr(0, 200)) + "' is not known" + core::suggestion(model, every_model_name()) +
                    (core::nearest(model, every_model_name()).empty() ? "; `drydock models` lists them, or give a config.json" : ""));
}

System find_system(std::string_view system) {
  if (system.empty() || system.size() > 4096) throw core::Error("system: want a name such as h200_sxm, or a system JSON");
  const fs::path path{std::string(system)};
  if (path.extension() == ".json") return read_system(path);
  const std::vector<std::string> names = system_names();
  const std::string wanted = folded(system);
  for (const std::string& name : names)
    if (folded(name) == wanted) return read_system(data_dir() / "systems" / (name + ".json"));
  throw core::Error("system '" + std::string(system.substr(0, 200)) + "' is not known" + core::suggestion(system, names) +
                    (core::nearest(system, names).empty() ? "; `drydock systems` lists them, or give a system JSON" : ""));
}

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const fs::path& file : json_files(data_dir() / "models")) {
    const core::Json document = core::read_json(file);
    names.push_back(variants_of(core::Fields(document, file.string())).front().names.front());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> system_names() {
  std::vector<std::string> names;
  for (const fs::path& file : json_files(data_dir() / "systems")) names.push_back(file.stem().string());
  return names;
}

}  // namespace drydock::models
