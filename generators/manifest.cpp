#include "generators/manifest.h"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/text.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

namespace fs = std::filesystem;
using core::Json;

constexpr int kManifestVersion = 1;
constexpr std::string_view kManifest = "manifest.json", kReadme = "README.md";

void check_settings(const Request& request, const std::vector<std::string>& chosen) {
  std::vector<std::string> known;
  for (const std::string& name : chosen)
    for (const Setting& setting : target(name).settings) known.emplace_back(setting.key);
  for (const auto& [key, value] : request.settings)
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      std::sort(known.begin(), known.end());
      known.erase(std::unique(known.begin(), known.end()), known.end());
      std::string list;
      for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
      throw core::Error("--set " + key.substr(0, 60) + ": no such setting of these targets" +
                        core::suggestion(key, known) + (list.empty() ? "; they have none" : "; they have " + list));
    }
}

// A folder beside the files, in which all are written before the first takes its place.
class Staging {
 public:
  explicit Staging(const fs::path& dir) : dir_(dir), own_(dir / (".drydock-" + std::to_string(::getpid()))) {}
  ~Staging() {
    std::error_code status;
    fs::remove_all(own_, status);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void add(const OutputFile& file) const {
    const fs::path path = own_ / file.path;
    std::error_code status;
    fs::create_directories(path.parent_path(), status);
    core::write_file(path, file.text);
    if (file.executable) fs::permissions(path, kExecutable, fs::perm_options::add, status);
    if (!status) fs::create_directories((dir_ / file.path).parent_path(), status);
    if (status) throw core::Error(path.string() + ": can't be written: " + status.message());
  }
  void publish(const OutputFile& file) const {
    std::error_code status;
    fs::rename(own_ / file.path, dir_ / file.path, status);
    if (status) throw core::Error((dir_ / file.path).string() + ": can't be written: " + status.message());
  }

 private:
  static constexpr fs::perms kExecutable = fs::perms::owner_exec | fs::perms::group_exec | fs::perms::others_exec;
  fs::path dir_, own_;
};

// What a person starts with: scripts of the first target, engines before what needs them.
std::string first_to_run(const std::vector<OutputFile>& files) {
  for (const OutputFile& file : files)
    if (file.executable) return file.path;
  return files.empty() ? "" : files.front().path;
}

OutputFile manifest_file(const Request& request, const std::vector<std::string>& chosen,
                         const std::vector<OutputFile>& files) {
  Json list = Json::array(), settings = Json::object();
  for (const OutputFile& file : files)
    list.push_back({{"path", file.path},
                    {"what", file.what},
                    {"executable", file.executable},
                    {"fnv1a", hex(fnv1a(file.text), 16)}});
  for (const auto& [key, value] : request.settings) settings[key] = value;
  const Json out = {{"schema", "drydock.files"},
                    {"version", kManifestVersion},
                    {"drydock", request.version},
                    {"plan", plan_hash(request.plan)},
                    {"command", request.command},
                    {"targets", chosen},
                    {"settings", settings},
                    {"run_first", first_to_run(files)},
                    {"files", list}};
  return {std::string(kManifest), json_text(out), "all files, with what each is"};
}

// Text in Markdown outside of code: nothing of it is markup.
std::string markdown_text(std::string_view text) {
  std::string out;
  for (const char c : comment_text(text)) {
    if (std::string_view("\\`*_{}[]<>#|!&").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

OutputFile readme_file(const Request& request, const std::vector<std::string>& chosen,
                       const std::vector<OutputFile>& files) {
  const models::Plan& plan = request.plan;
  std::string text = "# " + markdown_text(plan.model) + " on " + std::to_string(plan.gpus()) +
                     " GPUs\n\nMade by drydock " + markdown_text(request.version) + " from plan " + plan_hash(plan) +
                     ", engine " + std::string(models::name(plan.backend)) + ".\n\n";
  text += "Start with `" + first_to_run(files) +
          "`. Whether the files still are what the plan says: `drydock generate --check . --plan plan.json`.\n";
  for (const std::string& name : chosen) {
    text += "\n## " + name + "\n\n" + std::string(target(name).what) + "\n\n| file | what it is |\n|---|---|\n";
    for (const OutputFile& file : files)
      if (file.path.starts_with(name + "/")) text += "| `" + file.path + "` | " + markdown_text(file.what) + " |\n";
  }
  return {std::string(kReadme), text, "what each file is, for people"};
}

}  // namespace

std::vector<OutputFile> generate(const Request& request, const std::vector<std::string>& chosen) {
  if (chosen.empty()) throw core::Error("--target is missing; drydock generate --list names them");
  for (const std::string& name : chosen) target(name);
  check_settings(request, chosen);
  std::vector<OutputFile> out;
  std::set<std::string> paths = {std::string(kManifest), std::string(kReadme)};
  for (const std::string& name : chosen)
    for (OutputFile& file : target(name).files(request)) {
      if (!paths.insert(file.path).second)
        throw core::Error("--target " + name + ": " + file.path +
                          " is another target's file too; give each a folder of its own");
      out.push_back(std::move(file));
    }
  const OutputFile readme = readme_file(request, chosen, out), manifest = manifest_file(request, chosen, out);
  out.push_back(readme);
  out.push_back(manifest);
  return out;
}

void write_files(const std::vector<OutputFile>& files, const fs::path& dir, bool force) {
  for (const OutputFile& file : files) {
    std::error_code status;
    const fs::path path = dir / file.path;
    if (fs::is_directory(path, status)) throw core::Error(path.string() + ": is a folder; want room for a file");
    if (!force && fs::exists(path, status) && core::read_file(path) != file.text)
      throw core::Error(path.string() + ": is there already with other content; --force replaces it");
  }
  core::make_output_dir(dir);
  const Staging staging(dir);
  for (const OutputFile& file : files) staging.add(file);
  for (const OutputFile& file : files) staging.publish(file);
}

Manifest read_manifest(const fs::path& dir) {
  const fs::path file = dir / kManifest;
  const Json json = core::read_json(file);
  const core::Fields f(json, file.string());
  if (f.text("schema") != "drydock.files") throw f.error("schema", "want 'drydock.files'");
  if (f.integer("version", 1, 1'000'000) > kManifestVersion)
    throw f.error("version", "is newer than this program; want " + std::to_string(kManifestVersion) +
                                 ", or use the drydock that wrote it");
  Manifest out;
  for (const Json& name : f.array("targets")) {
    if (!name.is_string()) throw f.error("targets", "want names of targets");
    out.targets.push_back(name);
  }
  for (const auto& [key, value] : f.object("settings").json().items()) {
    if (!value.is_string()) throw f.error("settings", "want texts");
    out.settings[key] = value;
  }
  const auto command = json.find("command");
  if (command != json.end() && command->is_string()) out.command = *command;
  return out;
}

}  // namespace drydock::generators
