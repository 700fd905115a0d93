#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/generated_files.h"
#include "core/error.h"
#include "generators/manifest.h"

namespace drydock::cli {
namespace {

using core::Json;

struct GenerateOptions {
  std::string plan, out, check;
  std::vector<std::string> targets, settings;
  bool force = false, list = false;
};

constexpr int kDrifted = 1;

void list_targets(const Context& context) {
  Json targets = Json::array();
  for (const generators::Target& target : generators::targets()) {
    Json settings = Json::array();
    for (const generators::Setting& s : target.settings)
      settings.push_back({{"key", s.key}, {"what", s.what}, {"default", s.otherwise}});
    targets.push_back({{"name", target.name}, {"what", target.what}, {"settings", settings}});
  }
  if (context.json) return print_json("drydock.targets", {{"targets", targets}});
  for (const Json& target : targets) {
    fmt::print("{}: {}\n", target["name"].get<std::string>(), target["what"].get<std::string>());
    Table table({"--set", "what", "default"}, "lll");
    for (const Json& s : target["settings"]) table.row({s["key"], s["what"], s["default"]});
    if (!target["settings"].empty()) fmt::print("{}", table.text());
    fmt::print("\n");
  }
}

void write_generated(const GenerateOptions& o, Context& context) {
  if (o.out.empty()) throw core::Error("--out is missing; it names the folder for the files");
  const auto targets = parse_targets(o.targets);
  configurator::Resources resources(context.database, context.calibration);
  const models::Plan plan = models::read_plan(o.plan);
  const auto files =
      generators::generate(file_request(plan, resources, parse_settings(o.settings), targets, o.plan), targets);
  generators::write_files(files, o.out, o.force);
  if (context.json) {
    Json list = Json::array();
    for (const generators::OutputFile& file : files)
      list.push_back({{"path", file.path}, {"what", file.what}, {"executable", file.executable}});
    return print_json("drydock.generate", {{"plan", generators::plan_hash(plan)}, {"out", o.out}, {"files", list}});
  }
  Table table({"file", "what it is"}, "ll");
  for (const generators::OutputFile& file : files) table.row({file.path, file.what});
  fmt::print("Written to {}:\n{}", o.out, table.text());
}

void check_generated(const GenerateOptions& o, Context& context) {
  generators::Manifest made;
  if (o.targets.empty()) made = generators::read_manifest(o.check);
  if (!o.targets.empty()) made.targets = o.targets;
  if (!o.settings.empty()) made.settings = parse_settings(o.settings);
  const auto targets = parse_targets(made.targets);
  configurator::Resources resources(context.database, context.calibration);
  const models::Plan plan = models::read_plan(o.plan);
  const auto files = generators::generate(file_request(plan, resources, made.settings, targets, o.plan), targets);
  const auto found = generators::drift(files, o.check);
  if (!found.empty()) context.exit_code = kDrifted;
  if (context.json) {
    Json list = Json::array();
    for (const generators::Drift& d : found)
      list.push_back({{"file", d.file}, {"where", d.where}, {"expected", d.expected}, {"found", d.found}});
    return print_json("drydock.drift", {{"plan", generators::plan_hash(plan)}, {"drift", list}});
  }
  if (found.empty()) return fmt::print("{} is what the plan says: {} files\n", o.check, files.size() - 2);
  Table table({"file", "where", "expected", "found"}, "llll");
  for (const generators::Drift& d : found) table.row({d.file, d.where, d.expected, d.found});
  fmt::print("{} differs from the plan:\n{}", o.check, table.text());
}

}  // namespace

void add_generate(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("generate", "a plan's files for an engine or a platform");
  const auto o = std::make_shared<GenerateOptions>();
  command->add_option("--plan,plan", o->plan, "plan.json")->type_name("FILE");
  command->add_option("--target", o->targets, "what to write files for, more than one with commas")
      ->type_name("T[,T..]");
  command->add_option("--out", o->out, "folder for the files")->type_name("DIR");
  command->add_option("--set", o->settings, "a target's setting; more than once")->type_name("KEY=VALUE");
  command->add_flag("--force", o->force, "replace files that are there with other content");
  command->add_flag("--list", o->list, "the targets and their settings");
  command
      ->add_option("--check", o->check, "compare the files of this folder with the plan; exit code 1 when they differ")
      ->type_name("DIR");
  add_common(*command, context);
  command->footer(
      "Examples:\n  drydock generate --plan deployment/plan.json --target vllm,bench --out files \\\n"
      "    --set model-path=/models/qwen3-32b-fp8\n"
      "  drydock generate --check files --plan deployment/plan.json\n"
      "Exit codes: 0 done, 1 files differ from the plan, 2 bad input");
  command->callback([=, &context] {
    if (o->list) return list_targets(context);
    if (o->plan.empty()) throw core::Error("--plan is missing; it names the plan.json");
    if (!o->check.empty() && (!o->out.empty() || o->force))
      throw core::Error("--check: reads files; --out and --force write some");
    o->check.empty() ? write_generated(*o, context) : check_generated(*o, context);
  });
}

}  // namespace drydock::cli
