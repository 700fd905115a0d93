#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>

#include "cli/command.h"
#include "cli/simulation_page.h"
#include "cli/simulation_run.h"
#include "core/error.h"

namespace drydock::cli {
namespace {

constexpr size_t kMostPlans = 8;

struct CompareOptions {
  std::vector<std::string> plans;
  LoadOptions load;
};

// The files' names, as far as they tell them apart; else letters.
std::vector<std::string> names_of(const std::vector<std::string>& files) {
  std::vector<std::string> names;
  for (const std::string& file : files) names.push_back(std::filesystem::path(file).stem().string().substr(0, 16));
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end()) return names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = std::string(1, static_cast<char>('a' + i));
  return names;
}

std::vector<Compared> run(const std::vector<Stage>& stages, const CompareOptions& o) {
  std::vector<Job> jobs;
  for (const Stage& stage : stages)
    for (Job& job : jobs_of(stage, o.load, true)) jobs.push_back(std::move(job));
  Progress progress("simulating the first plan");
  jobs.front().sinks.progress = [&](int64_t requests) { progress.told(requests); };
  const auto outcomes = run_jobs(jobs, threads_of(o.load));
  const auto names = names_of(o.plans);
  std::vector<Compared> out;
  const auto each = static_cast<size_t>(stages.front().replications);
  for (size_t i = 0; i < stages.size(); ++i)
    out.push_back({names[i], &stages[i], summary_of(stages[i], outcomes, i * each, each)});
  return out;
}

void compare(const CompareOptions& o, Context& context) {
  const auto begin = std::chrono::steady_clock::now();
  if (o.plans.size() < 2 || o.plans.size() > kMostPlans)
    throw core::Error(fmt::format("--plans: want 2 to {} files, not {}", kMostPlans, o.plans.size()));
  configurator::Resources resources(context.database, context.calibration);
  std::vector<Stage> stages;
  for (const std::string& plan : o.plans) stages.push_back(stage_of(plan, o.load, resources));
  const std::vector<Compared> compared = run(stages, o);
  if (!context.json) {
    for (const Compared& plan : compared)
      fmt::print("{}: {}\n{}  {}, {} requests\n", plan.name, plan_text(plan.stage->plan),
                 std::string(plan.name.size(), ' '), plan.stage->load.text, plan.summary.requests);
    fmt::print("\n");
    return print_compared(compared);
  }
  core::Json plans = core::Json::array();
  for (size_t i = 0; i < compared.size(); ++i) {
    core::Json one = {{"name", compared[i].name}, {"file", o.plans[i]}};
    one.update(stage_json(*compared[i].stage, compared[i].summary));
    plans.push_back(std::move(one));
  }
  const double wall_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  print_json("drydock.compare", {{"plans", plans}, {"wall_ms", wall_ms}});
}

}  // namespace

void add_compare(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("compare", "plans side by side under the same load");
  const auto o = std::make_shared<CompareOptions>();
  command->add_option("--plans", o->plans, "plan.json files, 2 to 8")->required()->type_name("FILE");
  add_load(*command, o->load);
  add_common(*command, context);
  command->footer(
      "Examples:\n  drydock compare --plans a.json b.json --rate 20\n"
      "  drydock compare --plans deployment/plans/1.json deployment/plans/2.json --trace conversation.jsonl");
  command->callback([=, &context] { compare(*o, context); });
}

}  // namespace drydock::cli
