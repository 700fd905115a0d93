// drydock sweep: many questions at once, in shards.
#include "configurator/sweep.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>

#include "cli/command.h"
#include "cli/sweep_page.h"
#include "configurator/sweep_run.h"
#include "core/error.h"
#include "core/file.h"
#include "core/text.h"
#include "generators/manifest.h"
#include "generators/sweep_jobs.h"

namespace drydock::cli {
namespace {

namespace fs = std::filesystem;
using configurator::Shard;
using configurator::Sweep;
using configurator::SweepStore;

constexpr int64_t kMostSweepThreads = 1024;

struct SweepOptions {
  std::string yaml, out, shard = "1/1", threads, show, merge, write_jobs, shards;
  std::vector<std::string> settings;
  bool resume = false, csv = false, force = false;
};

// A bar on stderr, if that is a terminal.
class SweepBar {
 public:
  SweepBar() : terminal_(::isatty(STDERR_FILENO) != 0), begin_(std::chrono::steady_clock::now()) {}
  ~SweepBar() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }
  SweepBar(const SweepBar&) = delete;
  SweepBar& operator=(const SweepBar&) = delete;

  void at(const configurator::SweepProgress& p) {
    if (!terminal_ || p.of == 0) return;
    constexpr int64_t kWidth = 40;
    const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    const auto full = static_cast<size_t>(kWidth * p.done / p.of);
    std::string left;
    if (p.here > 0)
      left = fmt::format(", {:.0f} s left", s / static_cast<double>(p.here) * static_cast<double>(p.of - p.done));
    fmt::print(stderr, "\r[{}{}] {}/{} items{}\033[K", std::string(full, '#'), std::string(kWidth - full, '-'), p.done,
               p.of, left);
    std::fflush(stderr);
    shown_ = true;
  }

 private:
  bool terminal_, shown_ = false;
  std::chrono::steady_clock::time_point begin_;
};

std::string file_name(Shard shard) {
  return shard.n == 1 ? "sweep.db" : fmt::format("shard-{}-of-{}.db", shard.k, shard.n);
}

// The store of a shard; one with answers is gone on with only where that was asked for.
SweepStore open_store(const fs::path& file, const SweepOptions& o, const Context& context, const Sweep& sweep) {
  const core::Json basis = configurator::sweep_basis(sweep, DRYDOCK_VERSION, context.database, context.calibration);
  SweepStore store = SweepStore::write(file, configurator::sweep_json(sweep), basis);
  if (!o.resume && store.count() > 0)
    throw core::Error(fmt::format("{}: holds {} answers already; --resume goes on from them, another --out begins anew",
                                  file.string(), store.count()));
  return store;
}

void run_shard(const SweepOptions& o, const Context& context) {
  if (o.out.empty()) throw core::Error("--out is missing; it names the folder for the results");
  const Shard shard = configurator::parse_shard(o.shard, "--shard");
  const int threads = o.threads.empty() ? 0 : static_cast<int>(parse_count(o.threads, "--threads", kMostSweepThreads));
  const Sweep sweep = configurator::read_sweep(o.yaml);
  configurator::Resources resources(context.database, context.calibration);
  configurator::prepare_sweep(sweep, resources);
  core::make_output_dir(o.out);
  const fs::path file = fs::path(o.out) / file_name(shard);
  SweepStore store = open_store(file, o, context, sweep);
  const auto begin = std::chrono::steady_clock::now();
  configurator::SweepProgress at;
  {
    SweepBar bar;
    at = configurator::run_sweep(sweep, shard, resources, store, threads, [&](const auto& p) { bar.at(p); });
  }
  const double wall_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  const core::Json counts = sweep_counts(store);
  if (context.json)
    return print_json("drydock.sweep.run", {{"items", sweep.items()},
                                            {"shard", {{"k", shard.k}, {"n", shard.n}}},
                                            {"of_shard", at.of},
                                            {"answered_here", at.here},
                                            {"status", counts},
                                            {"file", file.string()},
                                            {"wall_ms", wall_ms}});
  fmt::print("{} of {} items{}: {}\n", at.of, sweep.items(),
             shard.n > 1 ? fmt::format(" are of shard {}/{}", shard.k, shard.n) : "", sweep_counts_text(counts));
  fmt::print("{} answered here in {:.1f} s ({} items/s)\nWritten to {}\n", at.here, wall_ms / 1000,
             human(static_cast<double>(at.here) / std::max(wall_ms / 1000, 1e-3)), file.string());
  if (shard.n > 1)
    fmt::print("Next, when all shards are done: drydock sweep --merge {}\n", o.out);
  else
    fmt::print("Next: drydock sweep --show {}\n", o.out);
}

std::vector<fs::path> shard_files(const fs::path& dir) {
  std::error_code status;
  if (!fs::is_directory(dir, status))
    throw core::Error(dir.string() + ": no such folder; want that of the shards' --out");
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("shard-") && name.ends_with(".db")) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  if (out.empty()) throw core::Error(dir.string() + ": holds no shard-*.db; want the folder of the shards' --out");
  return out;
}

void merge_shards(const SweepOptions& o, const Context& context) {
  const fs::path into = fs::path(o.merge) / "merged.db";
  const std::vector<fs::path> files = shard_files(o.merge);
  for (const fs::path& file : files) SweepStore::merge(into, file);
  const SweepStore store = SweepStore::read(into);
  const int64_t items = store.sweep().value("items", int64_t{0}), missing = items - store.count();
  if (context.json)
    return print_json("drydock.sweep.merge", {{"files", files.size()},
                                              {"items", items},
                                              {"missing", missing},
                                              {"status", sweep_counts(store)},
                                              {"file", into.string()}});
  fmt::print("{} files merged: {} of {} items: {}\nWritten to {}\n", files.size(), store.count(), items,
             sweep_counts_text(sweep_counts(store)), into.string());
  if (missing > 0)
    fmt::print("{} items are missing: their shards are not done; run those again with --resume, then merge again.\n",
               missing);
  fmt::print("Next: drydock sweep --show {}\n", o.merge);
}

// A file, or the result in a folder of --out.
fs::path shown_file(const fs::path& given) {
  std::error_code status;
  if (!fs::is_directory(given, status)) return given;
  for (const char* name : {"merged.db", "sweep.db"})
    if (fs::exists(given / name, status)) return given / name;
  throw core::Error(given.string() + ": holds neither merged.db nor sweep.db; --merge makes the first from shards");
}

void show_answers(const SweepOptions& o, const Context& context) {
  if (o.csv && context.json) throw core::Error("--csv and --json: give one of them");
  const SweepStore store = SweepStore::read(shown_file(o.show));
  if (context.json) return print_json("drydock.sweep", sweep_answers_json(store));
  if (o.csv) return fmt::print("{}", sweep_csv(store));
  fmt::print("{}", sweep_table(store));
  const int64_t items = store.sweep().value("items", int64_t{0});
  fmt::print("{} of {} items: {}. --csv and --json give bands and whole plans.\n", store.count(), items,
             sweep_counts_text(sweep_counts(store)));
}

generators::SweepJobs sweep_jobs_of(const SweepOptions& o) {
  generators::SweepJobs out;
  out.yaml = core::read_file(o.yaml, configurator::kMostYamlBytes);
  configurator::Resources resources;
  configurator::prepare_sweep(configurator::parse_sweep(out.yaml, o.yaml), resources);
  out.name = "sweep-" + fs::path(o.yaml).stem().string();
  out.version = DRYDOCK_VERSION;
  if (o.shards.empty()) throw core::Error("--shards is missing; it says into how many the sweep is cut");
  out.shards = parse_count(o.shards, "--shards", generators::kMostSweepShards);
  for (const std::string& setting : o.settings) {
    const size_t at = setting.find('=');
    if (at == std::string::npos) throw core::Error("--set '" + setting.substr(0, 60) + "': want key=value");
    out.settings[setting.substr(0, at)] = setting.substr(at + 1);
  }
  return out;
}

void write_jobs(const SweepOptions& o, const Context& context) {
  if (o.out.empty()) throw core::Error("--out is missing; it names the folder for the jobs");
  const generators::SweepJobs jobs = sweep_jobs_of(o);
  std::vector<generators::OutputFile> files;
  std::string_view rest = o.write_jobs;
  while (true) {
    const std::string one(rest.substr(0, rest.find(',')));
    if (one != "slurm" && one != "k8s")
      throw core::Error("--write-jobs '" + one.substr(0, 60) + "': want slurm, k8s or slurm,k8s" +
                        core::suggestion(one, {"slurm", "k8s"}));
    for (auto& file : one == "slurm" ? generators::slurm_sweep(jobs) : generators::k8s_sweep(jobs))
      files.push_back(std::move(file));
    if (rest.find(',') == std::string_view::npos) break;
    rest.remove_prefix(rest.find(',') + 1);
  }
  generators::write_files(files, o.out, o.force);
  core::Json list = core::Json::array();
  for (const auto& file : files) {
    list.push_back({{"path", file.path}, {"what", file.what}});
    if (!context.json) fmt::print("{:20}  {}\n", file.path, file.what);
  }
  if (context.json) print_json("drydock.sweep.jobs", {{"out", o.out}, {"shards", jobs.shards}, {"files", list}});
}

// Which of its jobs the command was given; each has its own flags.
void sweep(const SweepOptions& o, const Context& context) {
  const int modes = !o.show.empty() + !o.merge.empty() + !o.yaml.empty();
  if (modes == 0) throw core::Error("sweep.yaml is missing; `drydock sweep --help` shows an example");
  if (modes > 1) throw core::Error("give one of sweep.yaml, --show and --merge");
  if (o.csv && o.show.empty()) throw core::Error("--csv: goes with --show");
  if (o.force && o.write_jobs.empty()) throw core::Error("--force: goes with --write-jobs");
  if (!o.shards.empty() && o.write_jobs.empty())
    throw core::Error("--shards: goes with --write-jobs; want --shard k/n?");
  if (!o.show.empty()) return show_answers(o, context);
  if (!o.merge.empty()) return merge_shards(o, context);
  if (!o.write_jobs.empty()) return write_jobs(o, context);
  run_shard(o, context);
}

}  // namespace

void add_sweep(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("sweep", "many questions at once: models x systems x workloads x targets");
  const auto o = std::make_shared<SweepOptions>();
  command->add_option("yaml", o->yaml, "what to ask (docs/fleet.md)")->type_name("FILE");
  command->add_option("--out", o->out, "folder for the results")->type_name("DIR");
  command->add_option("--shard", o->shard, "k/n: every n-th item, from the k-th")->capture_default_str();
  command->add_option("--threads", o->threads, "items in work at once (default: one a core)");
  command->add_flag("--resume", o->resume, "goes on from what is in --out");
  command->add_option("--merge", o->merge, "joins the shards of a folder into its merged.db")->type_name("DIR");
  command->add_option("--show", o->show, "prints what a file or a folder of --out holds")->type_name("FILE|DIR");
  command->add_flag("--csv", o->csv, "with --show: one row an item");
  command->add_option("--write-jobs", o->write_jobs, "slurm, k8s: writes the jobs that run the shards");
  command->add_option("--shards", o->shards, "with --write-jobs: into how many the sweep is cut");
  command->add_flag("--force", o->force, "with --write-jobs: replace files that are there with other content");
  command->add_option("--set", o->settings, "with --write-jobs: key=value, such as image=drydock:1");
  add_common(*command, context);
  std::string keys;
  for (const auto& setting : generators::sweep_job_settings())
    keys += fmt::format("\n  {:14} {}{}", setting.key, setting.what,
                        setting.otherwise.empty() ? "" : fmt::format(" ({})", setting.otherwise));
  command->footer(
      "Examples:\n  drydock sweep sweep.yaml --out results\n"
      "  drydock sweep sweep.yaml --out results --shard 2/8 --resume\n  drydock sweep --merge results\n"
      "  drydock sweep --show results --csv\n"
      "  drydock sweep sweep.yaml --write-jobs slurm,k8s --shards 8 --out jobs\nKeys of --set:" +
      keys);
  command->callback([=, &context] { sweep(*o, context); });
}

}  // namespace drydock::cli
