#include "cli/db_diff.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>

#include "cli/db_diff_report.h"
#include "cli/simulation_page.h"
#include "cli/simulation_run.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::cli {
namespace {

namespace fs = std::filesystem;
using perfdb::Access;
using perfdb::Database;
using perfdb::Diff;

constexpr int kRegression = 1, kNotComparable = 4;

struct DbDiffOptions {
  std::string base, now, threshold = "3%", allow, junit, markdown, plan, rate;
};

// "3%" as 0.03.
double parse_threshold(const std::string& text) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  constexpr double kLeast = 0.1, kMost = 100;
  if (status != std::errc{} || unit != "%" || !(value >= kLeast && value <= kMost))
    throw core::Error("--threshold '" + text.substr(0, 60) + "': want a percentage from 0.1% to 100% such as 3%");
  return value / 100;
}

// Fields of the origins that may differ.
std::vector<std::string> parse_allow(const std::string& text) {
  const std::vector<std::string> all = {"gpu", "driver", "clocks"};
  if (text.empty()) return {};
  if (text == "all") return all;
  const std::vector<std::string> given = split(text, ',');
  for (const std::string& field : given)
    if (std::find(all.begin(), all.end(), field) == all.end())
      throw core::Error("--allow '" + text.substr(0, 60) +
                        "': want gpu, driver, clocks or several, as --allow=driver,clocks");
  return given;
}

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code status;
  return !a.empty() && !b.empty() && (a == b || fs::equivalent(a, b, status));
}

void check_files(const DbDiffOptions& o) {
  if (is_same_file(o.base, o.now)) throw core::Error(o.now + ": is the same file as the first; want another database");
  for (const auto& [flag, file] : {std::pair{"--junit ", o.junit}, {"--markdown ", o.markdown}})
    if (is_same_file(file, o.base) || is_same_file(file, o.now))
      throw core::Error(flag + file + ": is one of the databases; want another file");
  if (is_same_file(o.junit, o.markdown)) throw core::Error("--markdown " + o.markdown + ": is the file of --junit");
  if (!o.rate.empty() && o.plan.empty()) throw core::Error("--rate: goes with --plan, the plan to put under this load");
}

bool has_measurements(const Database& database) {
  const auto contents = database.contents();
  return std::any_of(contents.begin(), contents.end(), [](const auto& c) { return c.measurements > 0; });
}

Diff read_diff(const DbDiffOptions& o, double threshold) {
  const Database base = Database::open(o.base, Access::read), now = Database::open(o.now, Access::read);
  if (!has_measurements(base)) throw core::Error(o.base + ": holds no measurements; want those of a run to compare");
  if (!has_measurements(now)) throw core::Error(o.now + ": holds no measurements; want those of a run to compare");
  return perfdb::diff(base, now, threshold);
}

// Why the two can't be compared; empty when they can.
std::string obstacle(const DbDiffOptions& o, const Diff& diff) {
  if (diff.paired == 0) return o.base + " and " + o.now + ": no op of the same system, backend and kernel is in both";
  const std::vector<std::string> allowed = parse_allow(o.allow);
  Diff others;
  for (const perfdb::OriginDifference& d : diff.differences)
    if (std::find(allowed.begin(), allowed.end(), d.field) == allowed.end()) others.differences.push_back(d);
  if (others.differences.empty()) return "";
  return "not comparable: " + differences_text(others) + " (--allow compares them all the same)";
}

simulator::Summary simulated(const std::string& database, const DbDiffOptions& o, const Context& context, EndToEnd& out,
                             const Diff& diff) {
  configurator::Resources resources(database, context.calibration);
  LoadOptions load;
  load.rate = o.rate;
  const Stage stage = stage_of(o.plan, load, resources);
  const std::string backend(models::name(stage.plan.backend));
  for (const models::Pool& pool : stage.plan.pools) {
    const std::string& system = resources.system(pool.system).hardware.name;
    if (std::none_of(diff.families.begin(), diff.families.end(),
                     [&](const auto& f) { return f.system == system && f.backend == backend; }))
      throw core::Error("--plan " + o.plan + ": runs " + backend + " on " + system +
                        ", of which the databases have no op in common");
  }
  out.plan = plan_text(stage.plan);
  out.load = stage.load.text;
  Progress progress("simulating the plan");
  std::vector<Job> jobs = jobs_of(stage, load, false);
  jobs.front().sinks.progress = [&](int64_t requests) { progress.told(requests); };
  const auto outcomes = run_jobs(jobs, threads_of(load));
  return summary_of(stage, outcomes, 0, outcomes.size());
}

EndToEnd end_to_end(const DbDiffOptions& o, const Context& context, const Diff& diff) {
  EndToEnd out;
  out.base = simulated(o.base, o, context, out, diff);
  out.now = simulated(o.now, o, context, out, diff);
  return out;
}

void run(const DbDiffOptions& o, Context& context) {
  const double threshold = parse_threshold(o.threshold);
  parse_allow(o.allow);
  check_files(o);
  DiffReport report{o.base, o.now, threshold, read_diff(o, threshold), std::nullopt};
  if (const std::string why = obstacle(o, report.diff); !why.empty()) {
    fmt::print(stderr, "drydock: {}\n", core::Error(why).what());
    context.exit_code = kNotComparable;
    return;
  }
  if (!o.plan.empty()) report.end_to_end = end_to_end(o, context, report.diff);
  if (!o.junit.empty()) core::write_file(o.junit, diff_junit(report));
  if (!o.markdown.empty()) core::write_file(o.markdown, diff_markdown(report));
  if (context.json)
    print_json("drydock.db.diff", diff_json(report));
  else
    fmt::print("{}", diff_text(report));
  context.exit_code = report.diff.slower ? kRegression : kOk;
}

}  // namespace

void add_db_diff(CLI::App& db, Context& context) {
  CLI::App* command = db.add_subcommand("diff", "whether kernels got slower between two databases");
  const auto o = std::make_shared<DbDiffOptions>();
  command->add_option("base", o->base, "measurements before the change")->required()->type_name("FILE");
  command->add_option("new", o->now, "measurements after it")->required()->type_name("FILE");
  command->add_option("--threshold", o->threshold, "smallest slowdown that counts (default: 3%)")->type_name("PERCENT");
  command->add_flag("--allow{all}", o->allow,
                    "compare though gpu, driver or clocks differ; or only --allow=driver,clocks");
  command->add_option("--junit", o->junit, "JUnit XML to write")->type_name("FILE");
  command->add_option("--markdown", o->markdown, "page for a pull request to write")->type_name("FILE");
  command->add_option("--plan", o->plan, "plan.json whose TTFT, TPOT and throughput to compare")->type_name("FILE");
  command->add_option("--rate", o->rate, "requests/s of that plan (default: its own workload)");
  command->add_option("--calibration", context.calibration, "backend figures (default: the shipped ones)")
      ->type_name("FILE");
  command->add_flag("--json", context.json, "one JSON object on stdout");
  command->footer(
      "Example:\n  drydock db diff base.db new.db --threshold 3% --junit kernels.xml --plan plan.json --rate 10\n"
      "Exit codes: 0 no regression, 1 regression, 2 bad input, 4 not comparable");
  command->callback([=, &context] { run(*o, context); });
}

}  // namespace drydock::cli
