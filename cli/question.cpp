#include "cli/question.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <filesystem>

#include "cli/answer.h"
#include "cli/generated_files.h"
#include "cli/page.h"
#include "cli/report.h"
#include "core/error.h"
#include "core/file.h"
#include "core/text.h"
#include "generators/manifest.h"
#include "generators/runtime_config.h"

namespace drydock::cli {
namespace {

constexpr int64_t kMostGpus = 16384, kMostTop = 1000;
constexpr double kMostPrice = 1e5;

core::Error missing(const char* flag) {
  return core::Error(std::string(flag) + " is missing; `drydock recommend --help` shows an example");
}

int64_t needed_count(const std::string& text, const char* flag, int64_t most) {
  if (text.empty()) throw missing(flag);
  return parse_count(text, flag, most);
}

// "p95", "95", "mean"
std::optional<double> parse_percentile(const std::string& text) {
  if (text == "mean") return std::nullopt;
  const std::string number = text.starts_with("p") ? text.substr(1) : text;
  double value = 0;
  const auto [end, status] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (status != std::errc{} || end != number.data() + number.size() || !(value >= 50 && value <= 99.9))
    throw core::Error("--percentile '" + text.substr(0, 60) + "': want mean, or p50 to p99.9 such as p95");
  return value;
}

template <typename T>
T choice(const std::string& text, const char* flag, const std::vector<std::pair<std::string, T>>& known) {
  std::vector<std::string> names;
  std::string list;
  for (const auto& [name, value] : known) {
    if (name == text) return value;
    names.push_back(name);
    list += (list.empty() ? "" : ", ") + name;
  }
  throw core::Error(std::string(flag) + " '" + text.substr(0, 60) + "': want one of " + list +
                    core::suggestion(text, names));
}

std::optional<double> optional_ms(const std::string& text, const char* flag) {
  return text.empty() ? std::nullopt : std::optional(parse_ms(text, flag));
}

// The folders that making `dir` makes; those that are still empty in the end go again.
class NewFolders {
 public:
  explicit NewFolders(const std::filesystem::path& dir) {
    if (dir.empty()) return;
    for (auto at = std::filesystem::absolute(dir); !at.empty() && !std::filesystem::exists(at); at = at.parent_path())
      made_.push_back(at);
  }
  ~NewFolders() { remove(); }
  NewFolders(const NewFolders&) = delete;
  NewFolders& operator=(const NewFolders&) = delete;

  void remove() const {
    std::error_code status;
    for (const auto& folder : made_) std::filesystem::remove(folder, status);
  }

 private:
  std::vector<std::filesystem::path> made_;  // the deepest first
};

// What became of --out when there is no plan to write.
std::string not_written(const std::string& out) {
  const std::filesystem::path plan = std::filesystem::path(out) / "plan.json";
  if (!std::filesystem::exists(plan)) return "Nothing was written to " + out + ".";
  return "Nothing was written: " + plan.string() + " is of an earlier run and was left alone.";
}

void write_answer(const std::filesystem::path& dir, const configurator::Answer& answer,
                  configurator::Resources& resources) {
  for (size_t i = 0; i < answer.plans.size(); ++i)
    core::write_file(dir / "plans" / (std::to_string(i + 1) + ".json"), models::to_json(answer.plans[i].plan));
  std::error_code status;  // a longer list of an earlier answer would pass for part of this one
  for (size_t i = answer.plans.size() + 1;
       std::filesystem::remove(dir / "plans" / (std::to_string(i) + ".json"), status);)
    ++i;
  core::write_file(dir / "pareto.csv", pareto_csv(answer.pareto));
  core::write_file(dir / "runtime.json", generators::runtime_config(answer.plans.front().plan));
  write_placements(configurator::expert_placements(answer.plans.front().plan, resources), dir);
  core::write_file(dir / "plan.json", models::to_json(answer.plans.front().plan));
}

}  // namespace

configurator::Method parse_method(const std::string& text) {
  return choice<configurator::Method>(
      text, "--method", {{"simulate", configurator::Method::simulate}, {"analytic", configurator::Method::analytic}});
}

void add_question(CLI::App& command, QuestionOptions& o, const char* gpus_default) {
  o.gpus = gpus_default;
  command.add_option("--model", o.model, "name, folder with a config.json, or a config.json");
  command.add_option("--system", o.system, "GPU system, of workers and of prefill: a name or a system JSON");
  command.add_option("--decode-system", o.decode_system, "GPU system of decode workers (default: the same)");
  command.add_option("--precision", o.precision, "auto, bf16, fp8, fp8_block, int8, int4, nvfp4 (fp4), mxfp4")
      ->capture_default_str();
  command.add_option("--kv-precision", o.kv_precision, "auto, bf16, fp8")->capture_default_str();
  command.add_option("--backend", o.backend, "auto (of the first three), trtllm, vllm, sglang, drydock")
      ->capture_default_str();
  command.add_option("--mode", o.mode, "agg, disagg, both")->capture_default_str();
  command.add_option("--gpus", o.gpus, "GPUs at most")->capture_default_str();
  command.add_option("--isl", o.isl, "input tokens of a request");
  command.add_option("--osl", o.osl, "output tokens of a request");
  command.add_option("--prefix-hit", o.prefix_hit, "share of the prompt found in the prefix cache")
      ->capture_default_str();
  command.add_option("--rate", o.rate, "requests/s that arrive (Poisson)");
  command.add_option("--concurrency", o.concurrency, "requests in flight (closed loop)");
  command.add_option("--ttft", o.ttft, "target of the time to first token: ms, or with a unit");
  command.add_option("--tpot", o.tpot, "target of the time per output token: ms, or with a unit");
  command.add_option("--request-latency", o.request_latency, "target of the time of a request: ms, or with a unit");
  command
      .add_option("--percentile", o.percentile, "of the requests that must be within the targets: p95 and so on; mean")
      ->capture_default_str();
  command.add_option("--method", o.method, "simulate, or analytic: closed forms, for the mean")->capture_default_str();
  add_plan_flags(command, o.plan, "none");
  command.add_flag("--all", o.all, "simulate also what can't be among the best");
  command.add_option("--price", o.price, "price of a GPU per hour; ranks by cost");
  command.add_option("--top", o.top, "plans to show")->capture_default_str();
  command.add_option("--out", o.out, "folder for plan.json, plans/, pareto.csv and runtime.json")->type_name("DIR");
  command
      .add_option("--target", o.targets,
                  "with --out: what to write the first plan's files for (drydock generate --list)")
      ->type_name("T[,T..]");
  command.add_option("--set", o.settings, "a target's setting; more than once")->type_name("KEY=VALUE");
  command.add_flag("--force", o.force, "replace a target's files that are there with other content");
  command.add_option("--report", o.report, "page to write: the answer with charts, opens in any browser")
      ->type_name("FILE");
}

configurator::Question question_of(const QuestionOptions& o, configurator::Resources& resources) {
  using models::Backend;
  configurator::Question q;
  if (o.model.empty()) throw missing("--model");
  if (o.system.empty()) throw missing("--system");
  q.model = o.model;
  q.system = o.system;
  q.decode_system = o.decode_system;
  q.gpus = static_cast<int>(parse_count(o.gpus, "--gpus", kMostGpus));
  q.top = static_cast<int>(parse_count(o.top, "--top", kMostTop));
  q.workload.isl = needed_count(o.isl, "--isl", simulator::kMostTokens);
  q.workload.osl = needed_count(o.osl, "--osl", simulator::kMostTokens);
  q.workload.prefix_hit = parse_share(o.prefix_hit, "--prefix-hit");
  if (!o.rate.empty()) q.workload.rate = parse_positive(o.rate, "--rate", kMostRate, kLeastRate);
  if (!o.concurrency.empty())
    q.workload.concurrency = static_cast<double>(parse_count(o.concurrency, "--concurrency", kMostInFlight));
  if (q.workload.rate && q.workload.concurrency) throw core::Error("--rate and --concurrency: give one of them");
  q.slo = {optional_ms(o.ttft, "--ttft"), optional_ms(o.tpot, "--tpot"),
           optional_ms(o.request_latency, "--request-latency"), parse_percentile(o.percentile)};
  q.method = parse_method(o.method);
  if (q.method == configurator::Method::analytic) q.slo.percentile = std::nullopt;
  q.prune = !o.all;
  q.backend = choice<std::optional<Backend>>(o.backend, "--backend",
                                             {{"auto", std::nullopt},
                                              {"trtllm", Backend::trtllm},
                                              {"vllm", Backend::vllm},
                                              {"sglang", Backend::sglang},
                                              {"drydock", Backend::drydock}});
  if (!q.backend)  // files for an engine are of a plan for it
    for (const std::string& target : parse_targets(o.targets))
      if (const auto backend = models::parse_backend(target); backend && *backend != Backend::drydock)
        q.backend = backend;
  q.mode = choice<configurator::ModeChoice>(o.mode, "--mode",
                                            {{"agg", configurator::ModeChoice::agg},
                                             {"disagg", configurator::ModeChoice::disagg},
                                             {"both", configurator::ModeChoice::both}});
  if (q.mode == configurator::ModeChoice::disagg && q.gpus < 2)
    throw core::Error("--mode disagg: prefill and decode apart need --gpus 2 or more");
  q.precision = o.precision;
  q.kv_precision = o.kv_precision;
  models::choose_precision(resources.model(q.model), q.precision, q.kv_precision);  // throws on an unknown one
  apply(o.plan, resources.model(q.model), "", q.speculative, q.experts);
  for (const std::string* system : {&q.system, &q.decode_system})
    if (!system->empty()) {
      resources.system(*system);
      if (!o.price.empty()) resources.set_price(*system, parse_positive(o.price, "--price", kMostPrice));
    }
  return q;
}

int answer(const QuestionOptions& options, const configurator::Question& question, configurator::Resources& resources,
           const Context& context, std::string_view command) {
  const std::filesystem::path dir = options.out;
  const auto targets = parse_targets(options.targets);
  const auto settings = parse_settings(options.settings);
  if (dir.empty() && !targets.empty())
    throw core::Error("--target: --out is missing; it names the folder for the files");
  if (targets.empty() && (!settings.empty() || options.force)) throw core::Error("--set, --force: go with --target");
  const NewFolders made(dir);
  if (!options.out.empty()) core::make_output_dir(dir);  // before the work, so that a bad folder costs nothing
  if (!options.report.empty()) check_page_target(options.report, "--report");
  const auto start = std::chrono::steady_clock::now();
  const configurator::Answer found = configurator::recommend(question, resources);
  const double wall_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  if (!options.out.empty() && !found.plans.empty()) {
    const models::Plan& first = found.plans.front().plan;
    std::vector<generators::OutputFile> files;
    if (!targets.empty()) made.remove();  // made again when the files are there
    if (!targets.empty())
      files = generators::generate(file_request(first, resources, settings, targets, "plan.json"), targets);
    if (!targets.empty()) generators::write_files(files, dir, options.force);
    core::make_output_dir(dir / "plans");
    write_answer(dir, found, resources);
  }
  if (!options.report.empty()) {
    const Asked asked{context.arguments, options.out, context.database, context.calibration};
    const core::Json shown = answer_json(question, found, resources, wall_ms);
    core::write_file(options.report,
                     page_html("drydock.report", report_json(question, found, shown, asked, resources)));
  }
  if (context.json)
    print_json("drydock." + std::string(command), answer_json(question, found, resources, wall_ms));
  else
    print_answer(question, found, resources, wall_ms, options.out);
  if (!options.report.empty() && !context.json) fmt::print("Report: {}\n", options.report);
  if (found.plans.empty() && !options.out.empty())
    fmt::print(context.json ? stderr : stdout, "{}{}\n", context.json ? "drydock: " : "", not_written(options.out));
  return found.plans.empty() ? kNothingMeets : kOk;
}

}  // namespace drydock::cli
