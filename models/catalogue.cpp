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

// One entry of a shipped model's file: {"names": [...], "variants": [{"names": [...], "precision": ...}, ...]}.
struct Variant {
  std::vector<std::string> names;       // canonical first
  std::vector<std::string> shorthands;  // understood, but no name to suggest
  std::string precision = "auto", kv = "auto";
  int64_t max_context = 0;  // 0: that of the config
};

std::vector<std::string> texts(const core::Fields& f, std::string_view field) {
  std::vector<std::string> out;
  if (!f.has(field)) return out;
  for (const core::Json& item : f.array(field)) {
    if (!item.is_string()) throw f.error(field, "want strings");
    out.push_back(item.get<std::string>());
  }
  return out;
}

Variant variant_of(const core::Fields& f) {
  Variant out{texts(f, "names"), texts(f, "shorthands"), f.text_or("precision", "auto"), f.text_or("kv", "auto"),
              f.integer_or("max_context", 0, 1, int64_t{1} << 32)};
  if (out.names.empty()) throw f.error("names", "want at least one");
  return out;
}

// The model as published, then its variants.
std::vector<Variant> variants_of(const core::Fields& f) {
  std::vector<Variant> out{variant_of(f)};
  if (!f.has("variants")) return out;
  const core::Json& list = f.array("variants");
  for (size_t i = 0; i < list.size(); ++i) {
    const core::Fields v(list[i], f.origin(), "variants[" + std::to_string(i) + "]");
    v.only({"names", "shorthands", "precision", "kv", "max_context"});
    out.push_back(variant_of(v));
  }
  return out;
}

bool is_called(const Variant& variant, const std::string& folded_name) {
  const auto same = [&](const std::string& name) { return folded(name) == folded_name; };
  return std::any_of(variant.names.begin(), variant.names.end(), same) ||
         std::any_of(variant.shorthands.begin(), variant.shorthands.end(), same);
}

// A cheap test that spares parsing the files of other models: the folded name occurs before the config does.
bool may_hold(std::string_view content, std::string_view folded_name) {
  std::string head = core::lower_case(content.substr(0, content.find("\"config\"")));
  std::erase_if(head, [](char c) { return c == '-' || c == '_' || c == ' ' || c == '.'; });
  return head.find(folded_name) != std::string::npos;
}

Architecture from_catalogue(const core::Fields& f, const Variant& variant) {
  Architecture a = parse_config(f.require("config").dump(), "", f.origin() + " (config)");
  a.name = variant.names.front();
  a.precision = choose_precision(a, variant.precision, variant.kv);
  if (variant.max_context > 0) a.max_context = variant.max_context;
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
      if (is_called(variant, wanted)) return from_catalogue(f, variant);
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

// ", did you mean 'x'?", judged as names are matched, else `otherwise`.
std::string near_name(std::string_view typed, const std::vector<std::string>& names, std::string_view otherwise) {
  std::vector<std::string> comparable;
  for (const std::string& name : names) comparable.push_back(folded(name));
  const std::string nearest = core::nearest(folded(typed), comparable);
  if (nearest.empty()) return std::string(otherwise);
  const auto at = std::find(comparable.begin(), comparable.end(), nearest) - comparable.begin();
  return ", did you mean '" + names[static_cast<size_t>(at)] + "'?";
}

}  // namespace

fs::path data_dir() {
  std::error_code status;
  if (const char* set = std::getenv("DRYDOCK_DATA"); set && *set) {
    if (fs::is_directory(set, status)) return set;
    throw core::Error("DRYDOCK_DATA=" + std::string(set).substr(0, 200) +
                      ": is no folder; want the one that holds models/ and systems/");
  }
  const fs::path beside = fs::read_symlink("/proc/self/exe", status).parent_path() / ".." / "share" / "drydock";
  if (fs::is_directory(beside, status)) return beside.lexically_normal();
  throw core::Error("no data folder at " + beside.lexically_normal().string() +
                    "; install drydock whole, or set DRYDOCK_DATA");
}

Architecture read_config(const fs::path& config_json) {
  const fs::path folder = fs::absolute(config_json).parent_path(), quant = folder / "hf_quant_config.json";
  const std::string quant_text = is_file(quant) ? core::read_file(quant, core::kMaxJsonBytes) : "";
  Architecture a = parse_config(core::read_file(config_json, core::kMaxJsonBytes), quant_text, config_json.string());
  // `_name_or_path` may be where somebody kept the checkpoint.
  if (a.name.empty() || a.name.front() == '/' || a.name.front() == '.') a.name = folder.filename().string();
  return a;
}

Architecture find_model(std::string_view model) {
  if (model.empty() || model.size() > 4096)
    throw core::Error("model: want a name, a folder with a config.json, or a config.json");
  const fs::path path{std::string(model)};
  if (is_file(path / "config.json")) return read_config(path / "config.json");
  if (is_file(path)) return read_config(path);
  if (auto found = find_shipped(model)) return *std::move(found);
  throw core::Error("model '" + std::string(model.substr(0, 200)) + "' is not known" +
                    near_name(model, every_model_name(), "; `drydock models` lists them, or give a config.json"));
}

System find_system(std::string_view system) {
  if (system.empty() || system.size() > 4096)
    throw core::Error("system: want a name such as h200_sxm, or a system JSON");
  const fs::path path{std::string(system)};
  if (path.extension() == ".json" || is_file(path)) return read_system(path);
  const std::vector<std::string> names = system_names();
  const std::string wanted = folded(system);
  for (const std::string& name : names)
    if (folded(name) == wanted) return read_system(data_dir() / "systems" / (name + ".json"));
  throw core::Error("system '" + std::string(system.substr(0, 200)) + "' is not known" +
                    near_name(system, names, "; `drydock systems` lists them, or give a system JSON"));
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
