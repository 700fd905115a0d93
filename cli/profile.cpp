#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli/command.h"
#include "cli/profile_again.h"
#include "cli/profile_flags.h"
#include "cli/profile_report.h"
#include "core/error.h"
#include "core/file.h"
#include "core/text.h"
#include "models/catalogue.h"
#include "perfdb/database.h"
#include "profiler/campaign.h"
#include "profiler/cpu_device.h"
#include "profiler/remeasure.h"
#include "profiler/simulated_device.h"
#include "profiler/system_json.h"

namespace drydock::cli {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostStepTokens = 1 << 20, kMostContext = 10'000'000, kMostBatch = 1 << 16;
constexpr int64_t kMostRounds = 100;

struct ProfileOptions {
  std::vector<std::string> models;
  bool all_models = false, dry_run = false, energy = false;
  std::string tp = "1", pp = "1", dp = "1", ep, precision = "auto", kv_precision = "auto";
  std::string budget = "10m", target_error = "5%", target = "cuda", system, system_out, device = "0", threads;
  std::string most_tokens, most_context, most_batch, noise = "0.5%", seed = "1", ops, rounds = "1";
  std::vector<std::string> faults;
};

std::atomic<bool> stopped{false};

void on_interrupt(int) { stopped = true; }

// Ctrl-C ends the campaign, not the program: what was measured is fitted and told.
class CatchInterrupt {
 public:
  CatchInterrupt() {
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    ::sigaction(SIGINT, &action, &before_int_);
    ::sigaction(SIGTERM, &action, &before_term_);
  }
  ~CatchInterrupt() {
    ::sigaction(SIGINT, &before_int_, nullptr);
    ::sigaction(SIGTERM, &before_term_, nullptr);
  }
  CatchInterrupt(const CatchInterrupt&) = delete;
  CatchInterrupt& operator=(const CatchInterrupt&) = delete;

 private:
  struct sigaction before_int_ {
  }, before_term_{};
};

enum class Target : uint8_t { cuda, cpu, simulated };

Target target_of(const std::string& text) {
  if (text == "cuda") return Target::cuda;
  if (text == "cpu") return Target::cpu;
  if (text == "simulated") return Target::simulated;
  throw core::Error("--target '" + text.substr(0, 60) + "': want cuda, cpu or simulated" +
                    core::suggestion(text, {"cuda", "cpu", "simulated"}));
}

profiler::Ranges ranges_of(const ProfileOptions& o, Target target) {
  profiler::Ranges r;
  if (target == Target::cpu) r = {1024, 4096, 16};  // what a host can do while somebody waits
  if (!o.most_tokens.empty()) r.most_tokens = parse_count(o.most_tokens, "--max-tokens", kMostStepTokens);
  if (!o.most_context.empty()) r.most_context = parse_count(o.most_context, "--max-context", kMostContext);
  if (!o.most_batch.empty()) r.most_batch = parse_count(o.most_batch, "--max-batch", kMostBatch);
  return r;
}

profiler::Opener opener(const ProfileOptions& o, Target target) {
  if (target == Target::cuda) {
    const auto index = o.device == "0" ? 0 : static_cast<int>(parse_count(o.device, "--device", 1023));
    return [index] { return profiler::open_cuda_device(index); };
  }
  if (target == Target::cpu) {
    const int threads = o.threads.empty() ? 0 : static_cast<int>(parse_count(o.threads, "--threads", 4096));
    return [threads]() -> std::unique_ptr<profiler::Device> { return std::make_unique<profiler::CpuDevice>(threads); };
  }
  if (o.system.empty()) throw core::Error("--system is missing; --target simulated needs the machine to simulate");
  profiler::Silicon silicon = profiler::usual_silicon(models::find_system(o.system));
  silicon.seed = static_cast<uint64_t>(parse_count(o.seed, "--seed", 1LL << 52));
  for (const std::string& fault : o.faults) silicon.faults.push_back(profile_fault(fault));
  return
      [silicon]() -> std::unique_ptr<profiler::Device> { return std::make_unique<profiler::SimulatedDevice>(silicon); };
}

// A database that was made for a campaign that could not begin goes away again.
class Output {
 public:
  explicit Output(const fs::path& file) : file_(file) {
    std::error_code status;
    is_new_ = !fs::exists(file, status) && !status;
    try {
      database_ = std::make_unique<perfdb::Database>(perfdb::Database::open(file, perfdb::Access::create));
      database_->write([](const auto&) {});  // told now rather than after an hour: locked, read-only, full
    } catch (...) {
      undo();
      throw;
    }
  }
  ~Output() {
    if (!kept_) undo();
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  perfdb::Database& database() { return *database_; }
  void keep() { kept_ = true; }

 private:
  void undo() {
    database_.reset();
    std::error_code status;
    if (is_new_) fs::remove(file_, status);
  }
  fs::path file_;
  bool is_new_ = false, kept_ = false;
  std::unique_ptr<perfdb::Database> database_;
};

// Times must not be filed under another machine: an H100 has as many SMs as an H200, but not its memory.
void check_machine(const models::System& system, const profiler::Identity& here, Target target) {
  const double memory = here.memory_bytes / system.memory_bytes;
  const bool fits = target == Target::cpu ? system.hardware.architecture == "cpu"
                                          : here.units == system.hardware.sms && memory > 0.9 && memory < 1.1;
  if (!fits)
    throw core::Error(fmt::format("--system {}: this device is another: {}, {} {}, {:.0f} GB; want its own system JSON",
                                  system.name(), here.gpu, here.units, target == Target::cpu ? "processors" : "SMs",
                                  here.memory_bytes * 1e-9));
}

// A machine from its device passes through a file; a temporary one when none is asked for.
models::System system_of(const ProfileOptions& o, Target target, profiler::Worker* worker) {
  if (!o.system.empty()) {
    models::System system = models::find_system(o.system);
    if (target == Target::simulated) system = profiler::usual_silicon(system).system;
    if (worker != nullptr && target != Target::simulated) check_machine(system, worker->identity(), target);
    if (!o.system_out.empty()) core::write_file(o.system_out, profiler::to_json(system));
    return system;
  }
  if (!o.system_out.empty()) return worker->system(o.system_out);
  std::error_code status;
  const fs::path folder = fs::temp_directory_path(status);
  if (status) throw core::Error("TMPDIR: is no folder; want one to write to, or --system-out");
  const fs::path file = folder / ("drydock_system_" + std::to_string(::getpid()) + ".json");
  const models::System system = worker->system(file);
  fs::remove(file, status);
  return system;
}

// The models asked for, kept alive for the lowering.
struct Catalogue {
  std::vector<std::unique_ptr<models::Architecture>> architectures;
};

Catalogue catalogue_of(const ProfileOptions& o) {
  if (o.models.empty() == !o.all_models)
    throw core::Error(o.all_models
                          ? "--model and --all-models: give one of them"
                          : "--model is missing; it names a model, a folder with a config.json, or --all-models");
  Catalogue out;
  for (const std::string& name : o.all_models ? models::model_names() : o.models)
    out.architectures.push_back(std::make_unique<models::Architecture>(models::find_model(name)));
  return out;
}

struct Work {
  std::vector<profiler::Deployment> deployments;
  std::vector<std::string> skipped;
  std::vector<profiler::Family> families;
};

Work work_of(const ProfileOptions& o, const Catalogue& catalogue, const profiler::Ranges& ranges,
             const models::System& system) {
  profiler::Sizes s{profile_sizes(o.tp, "--tp"), profile_sizes(o.pp, "--pp"), profile_sizes(o.dp, "--dp"), {}};
  if (!o.ep.empty()) s.ep = profile_sizes(o.ep, "--ep");
  Work out;
  for (const auto& architecture : catalogue.architectures)
    for (const std::string& precision : profile_words(o.precision, "--precision")) {
      const models::Precision chosen = models::choose_precision(*architecture, precision, o.kv_precision);
      const auto more = profiler::deployments(*architecture, chosen, s, system, out.skipped);
      out.deployments.insert(out.deployments.end(), more.begin(), more.end());
    }
  if (out.deployments.empty())
    throw core::Error(out.skipped.empty() ? "no such combination of --tp, --dp and --ep" : out.skipped.front());
  out.families = profiler::work_list(out.deployments, ranges, system);
  return out;
}

std::function<void(const profiler::Progress&)> progress_bar(double budget_s) {
  if (isatty(STDERR_FILENO) == 0) return {};
  return [budget_s](const profiler::Progress& p) {
    constexpr int kWidth = 20;
    const double share = std::clamp(1 - p.seconds_left / budget_s, 0.0, 1.0);
    const auto done = static_cast<size_t>(share * kWidth);
    const std::string bar = std::string(done, '#') + std::string(kWidth - done, '.');
    const auto left = static_cast<int>(std::max(p.seconds_left, 0.0));
    fmt::print(stderr, "\r[{}] {} points  error {:.1f}%  {}:{:02d} left  {:50.50}", bar, p.points, p.error * 100,
               left / 60, left % 60, p.op);
    std::fflush(stderr);
  };
}

profiler::CampaignOptions campaign_options(const ProfileOptions& o, Target target) {
  profiler::CampaignOptions out;
  out.budget_s = profile_seconds(o.budget, "--budget");
  out.target_error = profile_share(o.target_error, "--target-error", 0.5);
  out.rule.noise = profile_share(o.noise, "--noise", 0.1);
  out.rule.most_seconds = target == Target::cpu ? 0.2 : 0.5;
  if (o.energy) {  // the counter moves on every 100 ms, and a window of a second tells
    out.rule.least_seconds = 1.2;
    out.rule.most_seconds = 1.25;
    out.rule.most_samples = 2000;
  }
  out.op_limit_s = std::min(20.0, 2 + out.budget_s / 10);
  return out;
}

void check_identity(const profiler::Identity& identity) {
  if (identity.mig)
    throw core::Error(identity.gpu + " is a MIG slice, whose times stand for no whole GPU; want a device without MIG");
}

// What a device does not have to be there to be told of.
void check_words(const ProfileOptions& o, const Catalogue& catalogue) {
  for (const auto& architecture : catalogue.architectures)
    for (const std::string& precision : profile_words(o.precision, "--precision"))
      models::choose_precision(*architecture, precision, o.kv_precision);
  for (const auto& [list, flag] : {std::pair{&o.tp, "--tp"}, std::pair{&o.pp, "--pp"}, std::pair{&o.dp, "--dp"}})
    profile_sizes(*list, flag);
}

void tell(const ProfileOptions& o, const ProfileWork& work, const profiler::CampaignReport& report,
          const profiler::CampaignOptions& options, Context& context) {
  if (isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r{:110}\r", "");
  if (report.points + report.reused == 0 && report.ending != profiler::Ending::interrupted)
    throw core::Error("nothing could be measured: " + first_reason(report));
  print_report(work, report, options, context);
  if (o.energy && report.energy.empty() && !context.json && !work.again)
    fmt::print("--energy: {}\n",
               report.points > 0 ? "the device tells none" : "no op was measured now, and rows hold none");
  if (report.ending < profiler::Ending::interrupted) return;
  fmt::print(stderr, "drydock: {}; {} points are kept in {}, and the same command goes on from there\n",
             report.lost.empty() ? "interrupted" : report.lost, report.points + report.reused, context.database);
  context.exit_code = kBadInput;
}

// --ops: those of another database once more, and nothing else.
void run_again(const ProfileOptions& o, Context& context) {
  const Target target = target_of(o.target);
  const profiler::CampaignOptions options = campaign_options(o, target);
  if (!o.models.empty() || o.all_models || o.dry_run) throw core::Error("--ops: goes without --model and --dry-run");
  if (context.database.empty()) throw core::Error("--db is missing; it names the database to write");
  const int rounds = static_cast<int>(parse_count(o.rounds, "--rounds", kMostRounds));
  const AgainOps again = ops_of(o.ops, o.system, o.target);
  const profiler::Opener open = opener(o, target);
  stopped = false;
  const CatchInterrupt interrupt;
  Output output(context.database);
  profiler::Worker worker(open, options.rule, &stopped);
  check_identity(worker.identity());
  if (target == Target::cuda) check_machine(again.system, worker.identity(), target);
  output.keep();
  const auto report = profiler::remeasure(output.database(), worker, again.system, again.ops, rounds, options,
                                          progress_bar(options.budget_s), &stopped);
  tell(o, {again.system, worker.identity(), 0, {}, true}, report, options, context);
}

void run(const ProfileOptions& o, Context& context) {
  if (!o.ops.empty()) return run_again(o, context);
  const Target target = target_of(o.target);
  const profiler::CampaignOptions options = campaign_options(o, target);
  const profiler::Ranges ranges = ranges_of(o, target);
  const Catalogue catalogue = catalogue_of(o);
  check_words(o, catalogue);  // a bad one is told before a device starts
  if (!o.dry_run && context.database.empty()) throw core::Error("--db is missing; it names the database to write");
  const profiler::Opener open = opener(o, target);
  stopped = false;
  const CatchInterrupt interrupt;

  std::unique_ptr<Output> output;
  if (!o.dry_run) output = std::make_unique<Output>(context.database);
  std::unique_ptr<profiler::Worker> worker;
  if (!o.dry_run || o.system.empty()) worker = std::make_unique<profiler::Worker>(open, options.rule, &stopped);
  if (worker) check_identity(worker->identity());
  const models::System system = system_of(o, target, worker.get());
  Work work = work_of(o, catalogue, ranges, system);
  const ProfileWork told{system, worker ? worker->identity() : profiler::Identity{}, work.deployments.size(),
                         work.skipped};
  if (o.dry_run) {
    print_dry_run(told, work.families, options, context.json);
    return;
  }
  output->keep();
  tell(o, told,
       profiler::run_campaign(output->database(), *worker, system, std::move(work.families), options,
                              progress_bar(options.budget_s), &stopped),
       options, context);
}

}  // namespace

void add_profile(CLI::App& app, Context& context) {
  CLI::App* c = app.add_subcommand("profile", "measures this machine's kernels into a database");
  const auto o = std::make_shared<ProfileOptions>();
  c->add_option("--model", o->models, "name, folder with a config.json, or a config.json; more than once for several");
  c->add_flag("--all-models", o->all_models, "all that `drydock models` lists");
  c->add_option("--tp", o->tp, "tensor-parallel sizes, such as 1,2,4,8")->capture_default_str();
  c->add_option("--pp", o->pp, "pipeline stages")->capture_default_str();
  c->add_option("--dp", o->dp, "attention-DP sizes")->capture_default_str();
  c->add_option("--ep", o->ep, "expert-parallel sizes (default: 1 and all ranks)");
  c->add_option("--precision", o->precision, "auto, bf16, fp8, ...; several with commas")->capture_default_str();
  c->add_option("--kv-precision", o->kv_precision, "auto, bf16, fp8")->capture_default_str();
  c->add_option("--max-tokens", o->most_tokens, "of one step (default: 8192; cpu: 1024)");
  c->add_option("--max-context", o->most_context, "of one sequence (default: 32768; cpu: 4096)");
  c->add_option("--max-batch", o->most_batch, "sequences of one step (default: 256; cpu: 16)");
  c->add_option("--budget", o->budget, "time it may take")->capture_default_str();
  c->add_option("--target-error", o->target_error, "expected error of a family's times at which it is done")
      ->capture_default_str();
  c->add_option("--noise", o->noise, "half-width of a median's 95 % interval at which sampling stops")
      ->capture_default_str();
  c->add_option("--target", o->target, "cuda, cpu or simulated")->capture_default_str();
  c->add_option("--device", o->device, "index of the GPU")->capture_default_str();
  c->add_option("--threads", o->threads, "of --target cpu (default: all processors)");
  c->add_option("--system", o->system, "the machine: a name or a system JSON (default: what the device tells)");
  c->add_option("--system-out", o->system_out, "where to write the machine as a system JSON")->type_name("FILE");
  c->add_option("--seed", o->seed, "of --target simulated")->capture_default_str();
  c->add_option("--fault", o->faults, "of --target simulated: PART-OF-AN-OP=oom, error, crash, hang or lost");
  c->add_option("--ops", o->ops, "measures the ops of that database again, for db diff, and nothing else")
      ->type_name("FILE");
  c->add_option("--rounds", o->rounds, "of --ops: passes over them; the fastest of each counts")->capture_default_str();
  c->add_flag("--energy", o->energy, "samples each op for 1.2 s, which a GPU's energy counter needs");
  c->add_flag("--dry-run", o->dry_run, "tells what would be measured and what it would cost");
  c->add_option("--db", context.database, "performance database to write, made when missing")->type_name("FILE");
  c->add_flag("--json", context.json, "one JSON object on stdout");
  c->footer(
      "Example:\n  drydock profile --target cpu --model Qwen/Qwen3-8B --budget 3m --db host.db --system-out "
      "cpu_host.json\n"
      "  drydock recommend --model Qwen/Qwen3-8B --system cpu_host.json --db host.db --backend drydock --gpus 1 \\\n"
      "    --isl 200 --osl 50\nThe same command again goes on where it ended.\n"
      "  drydock profile --target cpu --ops base.db --db new.db && drydock db diff base.db new.db");
  c->callback([=, &context] { run(*o, context); });
}

}  // namespace drydock::cli
