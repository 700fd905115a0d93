#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "cli/bench_page.h"
#include "cli/command.h"
#include "cli/simulation_page.h"
#include "cli/simulation_run.h"
#include "configurator/point_row.h"
#include "core/error.h"
#include "core/file.h"
#include "core/random.h"

namespace drydock::cli {
namespace {

constexpr int kNoAnswers = 1;

struct BenchOptions {
  std::string url, plan, model, key_variable, endpoint = "completions", timeout = "10min", retries = "0", vocabulary;
  std::string extra, within, out, save;
  bool compare = false, insecure = false;
  LoadOptions load;
};

std::atomic<bool> bench_stopped{false};
void stop_bench(int) { bench_stopped = true; }

// Ctrl-C ends the measurement, not the program; a second one ends that too.
void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = stop_bench;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

class BenchLine {
 public:
  void told(const runtime::BenchProgress& p) {
    if (!terminal_) return;
    shown_ = true;
    fmt::print(stderr, "\r{} answered, {} in flight, {} failed, {:.1f} s\033[K", p.answered, p.in_flight, p.failed,
               p.elapsed_s);
    std::fflush(stderr);
  }
  ~BenchLine() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) != 0, shown_ = false;
};

// What is known before the first request is sent.
struct BenchSetup {
  std::optional<Stage> stage;  // with a plan
  models::Plan plan;
  AskedLoad load;
  simulator::Targets targets;
  uint64_t seed = 1;
  runtime::BenchRun run;
};

void check_flags(const BenchOptions& o) {
  if (o.plan.empty() && o.compare) throw core::Error("--compare: goes with --plan, which is what is predicted");
  if (o.plan.empty() && !o.save.empty()) throw core::Error("--save: goes with --plan, which is what a row names");
  if (!o.compare && !o.within.empty()) throw core::Error("--within: goes with --compare");
  if (!o.within.empty()) parse_within(o.within);
  if (o.endpoint != "completions" && o.endpoint != "chat")
    throw core::Error("--endpoint '" + o.endpoint.substr(0, 60) + "': want completions or chat");
  if (o.plan.empty() && (o.load.rate + o.load.concurrency + o.load.trace + o.load.sessions + o.load.ramp).empty())
    throw core::Error("--concurrency, --rate, --trace, --sessions or --ramp: want one of them, or --plan");
  const bool lengths = !o.load.lengths.empty() || (!o.load.isl.empty() && !o.load.osl.empty());
  if (o.plan.empty() && o.load.trace.empty() && !lengths)
    throw core::Error("--isl and --osl, or --lengths: needed without --plan");
}

runtime::BenchTarget target_of(const BenchOptions& o) {
  runtime::BenchTarget out;
  out.url = o.url;
  out.verify_tls = !o.insecure;
  out.timeout_s = parse_span_us(o.timeout, "--timeout", true) * 1e-6;
  if (o.key_variable.empty()) return out;
  const char* key = std::getenv(o.key_variable.c_str());
  if (!key || !*key)
    throw core::Error("--api-key-env: the environment has no variable '" + o.key_variable.substr(0, 60) + "'");
  out.api_key = key;
  return out;
}

// The name to ask for: the one given, the plan's where the server has it, or the server's first.
std::string model_of(const BenchOptions& o, const models::Plan& plan, const runtime::BenchServer& server) {
  if (!o.model.empty()) return o.model;
  const auto& names = server.models;
  if (std::find(names.begin(), names.end(), plan.model) != names.end()) return plan.model;
  if (!names.empty()) return names.front();
  if (!plan.model.empty()) return plan.model;
  throw core::Error("--model: the server has no list of models at /v1/models; want the name to ask for");
}

// "{...}" without its braces.
std::string extra_fields(const std::string& text) {
  if (text.empty()) return "";
  const core::Json parsed = core::parse_json(text, "--extra");
  if (!parsed.is_object()) throw core::Error("--extra: want a JSON object, such as '{\"min_tokens\": 10}'");
  const std::string dumped = parsed.dump();
  return dumped.substr(1, dumped.size() - 2);
}

BenchSetup setup_of(const BenchOptions& o, Context& context, configurator::Resources& resources) {
  (void)context;
  BenchSetup out;
  LoadOptions sent = o.load;
  sent.to_server = true;
  int64_t vocabulary = 32'000;
  if (!o.plan.empty()) {
    out.stage = stage_of(o.plan, o.load, resources);
    out.plan = out.stage->plan;
    out.load = asked_load(sent, out.plan, &out.stage->instances.deployment);
    vocabulary = resources.model(out.plan.model).vocab;
  } else {
    out.plan.workload = asked_workload(o.load, out.plan);
    out.plan.slo = asked_slo(o.load, out.plan);
    out.load = asked_load(sent, out.plan, nullptr);
  }
  if (!o.vocabulary.empty()) vocabulary = parse_count(o.vocabulary, "--vocabulary", 1 << 24);
  out.targets = configurator::targets_of(out.plan.slo);
  out.seed = static_cast<uint64_t>(parse_whole(o.load.seed, "--seed", int64_t{1} << 53));
  out.run.tokens = runtime::token_range(vocabulary);
  // Other tokens in each run, or a server's prefix cache would know those of the run before.
  out.run.seed =
      core::mix(out.seed ^ static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()));
  out.run.retries = static_cast<int>(parse_whole(o.retries, "--retries", 1000));
  out.run.streams = std::llround(out.plan.workload.concurrency.value_or(16));
  out.run.steady_after = out.load.skip;
  out.run.stop = &bench_stopped;
  out.run.form.chat = o.endpoint == "chat";
  out.run.form.extra = extra_fields(o.extra);
  out.run.target = target_of(o);
  return out;
}

simulator::Summary predict(const BenchSetup& setup, const LoadOptions& load) {
  const std::vector<Job> jobs = jobs_of(*setup.stage, load, false);
  return summary_of(*setup.stage, run_jobs(jobs, 1), 0, 1);
}

simulator::Outcome measure(BenchSetup& setup, simulator::PartFile* rows, runtime::BenchTotals& totals) {
  simulator::CountedLoad counted(setup.load.make(setup.seed), setup.load.most_us);
  simulator::Recorder::Options recording;
  recording.targets = setup.targets;
  recording.skip = setup.load.skip;
  recording.precision = setup.load.precision;
  simulator::Sinks sinks;
  sinks.requests = rows;
  simulator::Outcome out;
  out.requests = std::make_unique<simulator::RunObserver>(recording, counted, sinks);
  BenchLine line;
  setup.run.progress = [&](const runtime::BenchProgress& p) { line.told(p); };
  catch_interrupts();
  totals = runtime::run_bench(setup.run, counted, *out.requests);
  out.result = simulator::figures_of(totals.totals, *out.requests, setup.plan.workload.rate.has_value());
  out.end_us = totals.totals.end_us;
  out.arrivals = counted.taken();
  return out;
}

configurator::PointMeasurement point_of(const BenchPage& page, const LoadOptions& load) {
  const simulator::Summary& s = page.measured;
  configurator::PointMeasurement out;
  out.ttft_ms = s.ttft_ms.mean, out.tpot_ms = s.tpot_ms.mean;
  out.ttft_p95_ms = s.ttft_ms.p95, out.tpot_p95_ms = s.tpot_ms.p95;
  out.requests_per_s = s.requests_per_s;
  out.in_flight = s.requests_per_s * s.latency_ms.mean * 1e-3;  // Little's law
  out.closed_uniform = (load.rate + load.ramp + load.trace + load.sessions + load.lengths).empty();
  out.load = page.load;
  return out;
}

// The files of --out and the row of --save.
class BenchFiles {
 public:
  explicit BenchFiles(const BenchOptions& o) : out_(o.out), save_(o.save) {
    if (!save_.empty() && std::filesystem::exists(save_))
      configurator::append_point(save_, "");  // are its columns ours?
    if (out_.empty()) return;
    core::make_output_dir(out_);
    rows_ = std::make_unique<simulator::PartFile>(out_ / "requests.csv");
    rows_->append(simulator::kRequestsHeader);
  }
  simulator::PartFile* rows() { return rows_.get(); }
  void write(const core::Json& json, const std::string& row) {
    if (rows_) {
      rows_->commit();
      core::write_file(out_ / "bench.json", json.dump(2) + "\n");
    }
    if (!save_.empty()) configurator::append_point(save_, row);
  }

 private:
  std::filesystem::path out_, save_;
  std::unique_ptr<simulator::PartFile> rows_;
};

void bench(const BenchOptions& o, Context& context) {
  check_flags(o);
  configurator::Resources resources(context.database, context.calibration);
  BenchSetup setup = setup_of(o, context, resources);
  if (!o.save.empty()) configurator::point_row(setup.plan, {});  // what no row can say is told before an hour is spent
  setup.run.form.model = model_of(o, setup.plan, runtime::ask_server(setup.run.target));
  if (setup.run.form.chat) runtime::learn_text(setup.run.target, setup.run.form);
  BenchPage page;
  if (o.compare) page.predicted = predict(setup, o.load);
  BenchFiles files(o);
  const simulator::Outcome outcome = measure(setup, files.rows(), page.totals);
  page.what = fmt::format("{} at {}, {}", setup.run.form.model, o.url, o.endpoint);
  page.load = setup.load.text;
  page.seed = setup.seed;
  page.targets = setup.targets;
  page.measured = simulator::summarize({&outcome}, {}, setup.targets);
  const core::Json json = bench_json(page);
  const bool answered = page.measured.requests > 0;
  files.write(json, answered && !o.save.empty() ? configurator::point_row(setup.plan, point_of(page, o.load)) : "");
  if (context.json)
    print_json("drydock.bench", json);
  else
    print_bench(page);
  if (!answered) context.exit_code = kNoAnswers;
  if (o.within.empty() || !answered) return;
  const auto complaints = outside(page, parse_within(o.within));
  for (const std::string& line : complaints) fmt::print(stderr, "drydock: {}\n", line);
  if (!complaints.empty()) context.exit_code = kNothingMeets;
}

void add_server(CLI::App& command, BenchOptions& o) {
  const char* group = "Which server";
  command.add_option("--url", o.url, "http://HOST:PORT, with or without /v1")->required()->group(group);
  command.add_option("--model", o.model, "name to ask for (default: the plan's or the server's first)")->group(group);
  command.add_option("--api-key-env", o.key_variable, "environment variable that holds the key")->group(group);
  command.add_option("--endpoint", o.endpoint, "completions (prompts of token ids) or chat (text)")
      ->capture_default_str()
      ->group(group);
  command.add_option("--extra", o.extra, "JSON object of more fields for every request")->group(group);
  command
      .add_option("--vocabulary", o.vocabulary, "tokens of prompts are drawn below it (default: the plan's model's)")
      ->group(group);
  command.add_option("--timeout", o.timeout, "of one answer; later it is lost")->capture_default_str()->group(group);
  command.add_option("--retries", o.retries, "of a request refused with 429 or 503, after as long as the server asks")
      ->capture_default_str()
      ->group(group);
  command.add_flag("--insecure", o.insecure, "don't check certificates")->group(group);
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("bench", "measures an OpenAI-compatible server, beside its prediction");
  const auto o = std::make_shared<BenchOptions>();
  command->add_option("--plan", o->plan, "plan.json that the server runs: its load, targets and prediction")
      ->type_name("FILE");
  command->add_flag("--compare", o->compare, "the plan simulated under the same requests, beside what was measured");
  command->add_option("--within", o->within, "exit 3 unless so near to the prediction: 5% or ttft=15%,tpot=10%[,mean]");
  command->add_option("--out", o->out, "folder for bench.json and requests.csv")->type_name("DIR");
  command->add_option("--save", o->save, "adds a row that validate --points reads")->type_name("FILE");
  add_server(*command, *o);
  add_requests(*command, o->load);
  add_common(*command, context);
  command->footer(
      "Examples:\n  drydock bench --url http://127.0.0.1:8000 --concurrency 16 --isl 1000 --osl 200 --requests 200\n"
      "  drydock bench --url http://127.0.0.1:8000 --plan plan.json --rate 5 --requests 500 --compare --save rows.csv\n"
      "Ctrl-C ends it and tells what was measured. Exit codes: 1 no request was answered, 3 outside of --within.");
  command->callback([=, &context] { bench(*o, context); });
}

}  // namespace drydock::cli
