#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>

#include "cli/autoscale_run.h"
#include "cli/command.h"
#include "cli/simulation_page.h"
#include "cli/simulation_run.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::cli {
namespace {

namespace fs = std::filesystem;

struct SimulateOptions {
  std::string plan, autoscale, out;
  LoadOptions load;
};

// What an interrupted run would leave: its file, then the folders that it made, the deepest first, a 0 after each.
// Plain memory, as a signal's handler reads it.
char unfinished_names[1 << 14];

void remove_unfinished(int signal) {
  const char* at = unfinished_names;
  ::unlink(at);
  for (at += std::strlen(at) + 1; *at; at += std::strlen(at) + 1) ::rmdir(at);
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

void remove_when_interrupted(const fs::path& file, const std::vector<fs::path>& folders) {
  std::string names = fs::absolute(file).string() + '\0';
  for (const fs::path& folder : folders) names += folder.string() + '\0';
  if (names.size() >= sizeof unfinished_names) return;
  std::copy(names.begin(), names.end(), unfinished_names);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction known {};
    if (::sigaction(signal, nullptr, &known) == 0 && known.sa_handler == SIG_DFL) ::signal(signal, remove_unfinished);
  }
}

// The folder of --out while it is written to; one that was made for a run that failed goes again.
class OutFolder {
 public:
  OutFolder(const std::string& folder, std::vector<std::string> pools)
      : folder_(folder), events_(pools), pools_(pools) {
    if (folder.empty()) return;
    for (fs::path at = fs::absolute(folder_); !at.empty() && !fs::exists(at); at = at.parent_path())
      made_.push_back(at);
    try {
      core::make_output_dir(folder_);
      requests_ = std::make_unique<simulator::PartFile>(folder_ / "requests.csv");
      remove_when_interrupted(requests_->temporary(), made_);
      requests_->append(simulator::kRequestsHeader);
    } catch (...) {
      undo();
      throw;
    }
  }
  ~OutFolder() {
    if (!folder_.empty() && !written_) undo();
  }
  OutFolder(const OutFolder&) = delete;
  OutFolder& operator=(const OutFolder&) = delete;

  simulator::Sinks sinks(Progress& progress) {
    simulator::Sinks out;
    out.progress = [&progress](int64_t requests) { progress.told(requests); };
    if (folder_.empty()) return out;
    out.requests = requests_.get();
    out.events = &events_;
    return out;
  }

  void write(const simulator::Outcome& first, core::Json summary) {
    if (folder_.empty()) return;
    events_.counters(first.timeline);
    summary["trace_events_left_out"] = events_.left_out();
    core::write_file(folder_ / "timeline.csv", simulator::timeline_csv(first.timeline, pools_));
    core::write_file(folder_ / "trace.json", events_.json());
    requests_->commit();
    core::write_file(folder_ / "summary.json", summary.dump(2) + "\n");
    written_ = true;
  }
  int64_t left_out() const { return events_.left_out(); }

 private:
  void undo() {
    requests_.reset();
    std::error_code status;
    for (const fs::path& made : made_) fs::remove(made, status);  // only when empty
  }

  fs::path folder_;
  std::vector<fs::path> made_;  // the deepest first
  bool written_ = false;
  std::unique_ptr<simulator::PartFile> requests_;
  simulator::TraceEvents events_;
  std::vector<std::string> pools_;
};

// What a run came to, whichever kind it was.
struct SimulateResult {
  simulator::Summary summary;
  std::optional<simulator::Summary> without;  // failures
  std::optional<AutoscaleStudy> study;
  std::vector<simulator::Outcome> outcomes;

  const simulator::Outcome& first() const { return study ? study->outcomes.front() : outcomes.front(); }
};

SimulateResult run(const Stage& stage, const SimulateOptions& o, const simulator::Sinks& sinks) {
  SimulateResult out;
  const int threads = threads_of(o.load);
  if (!o.autoscale.empty()) {
    out.study = study_autoscale(stage, o.autoscale, sinks, threads);
    out.summary = out.study->runs.front().summary;
    return out;
  }
  std::vector<Job> jobs = jobs_of(stage, o.load, true);
  jobs.front().sinks = sinks;
  if (any_faults(o.load))
    for (Job& job : jobs_of(stage, o.load, false)) jobs.push_back(std::move(job));
  out.outcomes = run_jobs(jobs, threads);
  const auto each = static_cast<size_t>(stage.replications);
  out.summary = summary_of(stage, out.outcomes, 0, each);
  if (any_faults(o.load)) out.without = summary_of(stage, out.outcomes, each, each);
  return out;
}

core::Json result_json(const Stage& stage, const SimulateResult& result) {
  core::Json out = stage_json(stage, result.summary);
  if (result.without) {
    out["failures"] = change_json(*result.without, result.summary);
    out["without_failures"] = simulator::summary_json(*result.without);
  }
  if (result.study) out["autoscale"] = study_json(*result.study);
  return out;
}

void print_result(const Stage& stage, const SimulateResult& result, const SimulateOptions& o, int64_t left_out) {
  print_stage(stage, result.summary);
  print_summary(stage, result.summary);
  if (result.without) print_change(*result.without, result.summary);
  if (result.study) print_study(*result.study);
  if (o.out.empty()) {
    fmt::print("--out DIR writes summary.json, requests.csv, timeline.csv and trace.json.\n");
    return;
  }
  fmt::print("Written to {}: summary.json, requests.csv, timeline.csv, trace.json (opens in Perfetto{})\n", o.out,
             left_out > 0 ? fmt::format("; {} later events left out", left_out) : "");
}

void simulate(const SimulateOptions& o, Context& context) {
  const auto begin = std::chrono::steady_clock::now();
  if (!o.autoscale.empty() && any_faults(o.load))
    throw core::Error("--autoscale: goes without --fail, --slow and --mtbf");
  configurator::Resources resources(context.database, context.calibration);
  const Stage stage = stage_of(o.plan, o.load, resources);
  faults(o.load, stage.plan, stage.start_up_us, stage.seed);  // so that what is wrong with them comes before a folder
  std::vector<std::string> pools;
  for (const auto& pool : stage.pools) pools.push_back(pool.name);
  OutFolder folder(o.out, pools);
  SimulateResult result;
  {
    Progress progress("simulating");
    result = run(stage, o, folder.sinks(progress));
  }
  core::Json json = result_json(stage, result);
  folder.write(result.first(), json);
  if (!context.json) return print_result(stage, result, o, folder.left_out());
  json["wall_ms"] = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  print_json("drydock.simulate", json);
}

}  // namespace

void add_simulate(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("simulate", "a plan under a load, request by request");
  const auto o = std::make_shared<SimulateOptions>();
  command->add_option("--plan", o->plan, "plan.json")->required()->type_name("FILE");
  command->add_option("--out", o->out, "folder for summary.json, requests.csv, timeline.csv, trace.json")
      ->type_name("DIR");
  command->add_option("--autoscale", o->autoscale, "policy that changes the number of workers")->type_name("FILE");
  add_load(*command, o->load);
  add_common(*command, context);
  command->footer(
      "Examples:\n  drydock simulate --plan deployment/plan.json --rate 20 --requests 10000 --out run\n"
      "  drydock simulate --plan deployment/plan.json --trace conversation.jsonl --speed 2 --fail worker/0@30s\n"
      "Failed workers serve again after their model is loaded: the weights of a GPU at 2 GB/s, or --start-up.");
  command->callback([=, &context] { simulate(*o, context); });
}

}  // namespace drydock::cli
