// Where files in a folder differ from what the plan says.
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "generators/manifest.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr size_t kMostShown = 120;

std::string drift_text(const Json& value) {
  const std::string text =
      value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return comment_text(text.substr(0, kMostShown));
}

// Scalars as texts: whether one is quoted is no drift. `room`: nodes that may still be made, as aliases multiply.
Json json_of_yaml(const YAML::Node& node, int depth, int& room) {
  if (depth > core::kMaxJsonDepth || --room < 0) throw core::Error("too deep, or too large");
  if (node.IsMap()) {
    Json out = Json::object();
    for (const auto& item : node) out[item.first.as<std::string>()] = json_of_yaml(item.second, depth + 1, room);
    return out;
  }
  if (node.IsSequence()) {
    Json out = Json::array();
    for (const auto& item : node) out.push_back(json_of_yaml(item, depth + 1, room));
    return out;
  }
  return node.IsScalar() ? Json(node.Scalar()) : Json(nullptr);
}

Json yaml_documents(const std::string& text) {
  Json out = Json::array();
  int room = 1 << 20;
  for (const YAML::Node& node : YAML::LoadAll(text)) out.push_back(json_of_yaml(node, 0, room));
  return out.size() == 1 ? out[0] : out;
}

void compare_values(const std::string& file, const std::string& where, const Json& want, const Json& got,
                    std::vector<Drift>& out) {
  if (want.is_object() && got.is_object()) {
    for (const auto& [key, value] : want.items()) {
      const std::string at = where.empty() ? key : where + "." + key;
      if (got.contains(key))
        compare_values(file, at, value, got[key], out);
      else
        out.push_back({file, at, drift_text(value), "missing"});
    }
    for (const auto& [key, value] : got.items())
      if (!want.contains(key))
        out.push_back({file, where.empty() ? key : where + "." + key, "absent", drift_text(value)});
  } else if (want.is_array() && got.is_array() && want.size() == got.size()) {
    for (size_t i = 0; i < want.size(); ++i)
      compare_values(file, where + "[" + std::to_string(i) + "]", want[i], got[i], out);
  } else if (want != got) {
    out.push_back({file, where, drift_text(want), drift_text(got)});
  }
}

// Lines that do something, without the continuation mark.
std::vector<std::string> script_lines(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.ends_with(" \\")) line.resize(line.size() - 2);
    const size_t first = line.find_first_not_of(" \t");
    if (first == std::string::npos || line[first] == '#') continue;
    out.push_back(line.substr(first));
  }
  return out;
}

// "--max-num-seqs 64" is about "--max-num-seqs"; a line without a flag about itself.
std::string flag_of(const std::string& line) { return line.starts_with("--") ? line.substr(0, line.find(' ')) : ""; }

std::string times_text(ptrdiff_t n, const std::string& line) {
  return n == 1 ? drift_text(line) : std::to_string(n) + " x " + drift_text(line);
}

// The order of what is no flag: flags may stand in any.
void compare_order(const std::string& file, std::vector<std::string> want, std::vector<std::string> got,
                   std::vector<Drift>& out) {
  const auto is_flag = [](const std::string& line) { return !flag_of(line).empty(); };
  std::erase_if(want, is_flag);
  std::erase_if(got, is_flag);
  const auto [w, g] = std::mismatch(want.begin(), want.end(), got.begin(), got.end());
  if (w != want.end() && g != got.end()) out.push_back({file, "order", drift_text(*w), drift_text(*g)});
}

void compare_lines(const std::string& file, const std::string& want, const std::string& got, std::vector<Drift>& out) {
  const std::vector<std::string> wanted = script_lines(want), found = script_lines(got);
  const size_t before = out.size();
  const auto same_flag = [](const std::vector<std::string>& lines, const std::string& flag) {
    return std::find_if(lines.begin(), lines.end(), [&](const std::string& line) { return flag_of(line) == flag; });
  };
  std::set<std::string> told;
  for (const std::string& line : wanted) {
    const auto here = std::count(found.begin(), found.end(), line);
    const auto due = std::count(wanted.begin(), wanted.end(), line);
    if (here == due || !told.insert(line).second) continue;
    const std::string flag = flag_of(line);
    const auto other = flag.empty() ? found.end() : same_flag(found, flag);
    const std::string instead = here > 0               ? times_text(here, line)
                                : other == found.end() ? "missing"
                                                       : drift_text(*other);
    out.push_back({file, flag, times_text(due, line), instead});
  }
  for (const std::string& line : found) {
    if (std::find(wanted.begin(), wanted.end(), line) != wanted.end() || !told.insert(line).second) continue;
    const std::string flag = flag_of(line);
    const bool told_there = !flag.empty() && std::count_if(found.begin(), found.end(), [&](const std::string& other) {
                                               return flag_of(other) == flag;
                                             }) == 1;
    if (!told_there || same_flag(wanted, flag) == wanted.end()) out.push_back({file, flag, "absent", drift_text(line)});
  }
  if (out.size() == before) compare_order(file, wanted, found, out);
}

}  // namespace

std::vector<Drift> drift(const std::vector<OutputFile>& files, const std::filesystem::path& dir) {
  std::vector<Drift> out;
  for (const OutputFile& file : files) {
    if (file.path == "manifest.json" || file.path == "README.md") continue;
    std::error_code status;
    if (!std::filesystem::exists(dir / file.path, status)) {
      out.push_back({file.path, "", "the file", "missing"});
      continue;
    }
    const std::string found = core::read_file(dir / file.path, core::kMaxJsonBytes);
    if (found == file.text) continue;
    try {
      if (file.path.ends_with(".json"))
        compare_values(file.path, "", core::parse_json(file.text, file.path), core::parse_json(found, file.path), out);
      else if (file.path.ends_with(".yaml"))
        compare_values(file.path, "", yaml_documents(file.text), yaml_documents(found), out);
      else
        compare_lines(file.path, file.text, found, out);
    } catch (const YAML::Exception& error) {
      out.push_back({file.path, "", "YAML", drift_text(error.what())});
    } catch (const core::Error& error) {
      out.push_back({file.path, "", "JSON", drift_text(error.what())});
    }
  }
  return out;
}

}  // namespace drydock::generators
