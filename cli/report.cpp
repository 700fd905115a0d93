#include "cli/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/answer.h"
#include "cli/command.h"
#include "cli/generated_files.h"
#include "configurator/parallel.h"
#include "configurator/study.h"
#include "core/error.h"
#include "generators/manifest.h"
#include "generators/text.h"

namespace drydock::cli {
namespace {

using configurator::Answer;
using configurator::Question;
using configurator::Ranked;
using configurator::Resources;
using core::Json;

constexpr size_t kMostFelt = 5;       // plans with distributions of users' times
constexpr size_t kMostStudied = 3;    // plans in the study of assumptions, which simulates each some 50 times
constexpr size_t kMostDetailed = 32;  // plans of one list with a breakdown
constexpr size_t kMostFront = 80;     // points of the front
constexpr int kMostOps = 10;          // of a step

std::string shape_text(const models::Plan& plan) {
  std::string out;
  for (const models::Pool& pool : plan.pools) out += (out.empty() ? "" : " + ") + pool_text(pool);
  return out;
}

// The load to put on the plan: what was asked, or as many users as its batch limits take.
std::vector<std::string> load_flags_of(const models::Plan& plan) {
  const models::Workload& w = plan.workload;
  if (w.rate) return {"--rate", fmt::format("{}", *w.rate)};
  const models::Pool& last = plan.pools.back();
  const double full = static_cast<double>(last.max_batch) * last.replicas;
  return {"--concurrency", fmt::format("{:.0f}", w.concurrency.value_or(full))};
}

// The line that writes the files of the plan's engine, with stand-ins for checkpoints that the plan can't name; empty:
// the engine can't be told the plan.
std::vector<std::string> generate_words(const models::Plan& plan, const std::string& file, Resources& resources) {
  const std::string engine(models::name(plan.backend));
  std::vector<std::string> targets = {engine};
  if (plan.pools.front().system == plan.pools.back().system) targets.emplace_back("bench");
  const bool engines_own = plan.backend != models::Backend::drydock;
  for (int lacks = 0; lacks < 4; ++lacks) {
    std::map<std::string, std::string> settings;
    if ((lacks & 1) != 0) settings["draft-model"] = "DRAFT";
    if ((lacks & 2) != 0) settings["model-path"] = "CHECKPOINT";
    try {
      generators::generate(file_request(plan, resources, settings, targets, file), targets);
    } catch (const core::Error&) {
      if (!engines_own) return {};
      continue;
    }
    std::vector<std::string> words = {"drydock", "generate", "--plan",
                                      file,      "--target", fmt::format("{}", fmt::join(targets, ",")),
                                      "--out",   "files"};
    for (const auto& [key, value] : settings) words.insert(words.end(), {"--set", key + "=" + value});
    return words;
  }
  return {};
}

// What to do next with the plan in `file`.
Json next_commands(const models::Plan& plan, const std::string& file, Resources& resources) {
  std::vector<std::string> simulate = {"drydock", "simulate", "--plan", file};
  for (std::string& flag : load_flags_of(plan)) simulate.push_back(std::move(flag));
  simulate.insert(simulate.end(), {"--requests", "2000", "--out", "run"});
  Json out = Json::array();
  const auto add = [&](const char* what, const std::vector<std::string>& words) {
    out.push_back({{"what", what}, {"line", shell_line(words)}});
  };
  add("Predict it again, or with another load", {"drydock", "estimate", "--plan", file});
  add("Simulate it request by request", simulate);
  add("See that run as a page", {"drydock", "plot", "run/requests.csv", "--out", "requests.html"});
  if (const auto words = generate_words(plan, file, resources); !words.empty())
    add("Write the files that run it, and the load test that would confirm it", words);
  return out;
}

// Where a step's time goes and what fills the memory, the page's way: shares of a total, and all of a GPU's memory.
Json steps_json(const models::Plan& plan, Resources& resources) {
  Json steps = Json::array();
  try {
    steps = detail_json(configurator::explain(plan, resources));
  } catch (const core::Error&) {  // on the edge of the memory, where closed forms and engines may differ
  }
  for (Json& step : steps) {
    Json& memory = step["memory_bytes"];
    const double gpu = memory["gpu"], usable = gpu * resources.backend(plan.backend).memory_fraction;
    double fixed = 0, total_us = 0;
    for (const char* part : {"weights", "activations", "communication", "runtime"}) fixed += memory[part].get<double>();
    memory["kv_room"] = std::max(0.0, usable - fixed);
    memory["kept_free"] = std::max(0.0, gpu - std::max(usable, fixed));
    for (Json& op : step["ops"]) {
      total_us += op["us"].get<double>();
      op.erase("us");
    }
    step["total_us"] = total_us;
    if (step["ops"].size() > kMostOps) step["ops"].erase(step["ops"].begin() + kMostOps, step["ops"].end());
  }
  return steps;
}

// Which of a long list are kept: all, or an even choice with both ends.
std::vector<bool> kept_of(size_t n, size_t most) {
  std::vector<bool> out(n, n <= most);
  if (n > most)
    for (size_t i = 0; i < most; ++i) out[i * (n - 1) / (most - 1)] = true;
  return out;
}

// The plans of a list, each with what the page shows when it is chosen.
Json chosen_list(const std::vector<Ranked>& list, const Json& ranked, const std::vector<std::string>& files,
                 Resources& resources) {
  std::vector<Json> made(list.size());
  const std::vector<bool> detailed = kept_of(list.size(), kMostDetailed);
  configurator::in_parallel(list.size(), [&](size_t i) {
    const models::Plan& plan = list[i].plan;
    Json out = ranked[i];
    for (const char* same : {"model", "speculative", "experts"}) out.erase(same);  // as in "plan"
    out["workers"] = shape_text(plan);
    out["breakdown"] = detailed[i] ? steps_json(plan, resources) : Json::array();
    out["plan"] = Json::parse(models::to_json(plan));
    out["plan"].erase("prediction");
    out["commands"] = next_commands(plan, files[i], resources);
    made[i] = std::move(out);
  });
  Json out = Json::array();
  for (Json& plan : made) out.push_back(std::move(plan));
  return out;
}

Json front_json(const Answer& found, const Json& ranked, Resources& resources) {
  const std::vector<bool> kept = kept_of(found.pareto.size(), kMostFront);
  std::vector<Ranked> list;
  Json shown = Json::array();
  for (size_t i = 0; i < found.pareto.size(); ++i)
    if (kept[i]) list.push_back(found.pareto[i]), shown.push_back(ranked[i]);
  const std::vector<std::string> files(list.size(), "plan.json");  // to be saved from the page
  return chosen_list(list, shown, files, resources);
}

Json felt_json(const configurator::Felt& felt) {
  return {{"requests", felt.requests},
          {"ttft_ms", felt.ttft_ms},
          {"tpot_ms", felt.tpot_ms},
          {"request_latency_ms", felt.latency_ms}};
}

void add_felt(Json& plans, const std::vector<models::Plan>& studied, Resources& resources) {
  std::vector<std::optional<configurator::Felt>> felt(studied.size());
  configurator::in_parallel(studied.size(), [&](size_t i) { felt[i] = configurator::felt(studied[i], resources); });
  for (size_t i = 0; i < felt.size(); ++i)
    if (felt[i]) plans[i]["felt"] = felt_json(*felt[i]);
}

Json moved_json(const std::optional<models::Prediction>& p) {
  if (!p) return nullptr;
  return {{"tokens_per_s_per_gpu", p->tokens_per_s_per_gpu.value},
          {"ttft_ms", (p->tail ? p->tail->ttft_ms : p->ttft_ms).value},
          {"tpot_ms", (p->tail ? p->tail->tpot_ms : p->tpot_ms).value}};
}

Json sensitivity_json(const std::vector<models::Plan>& studied, configurator::Goal goal, Resources& resources) {
  Json out = Json::array();
  for (const configurator::Change& change : configurator::sensitivity(studied, goal, resources)) {
    Json plans = Json::array();
    for (const configurator::Moved& m : change.plans)
      plans.push_back({{"as_deployed", moved_json(m.as_deployed)},
                       {"meets", m.meets},
                       {"retuned", moved_json(m.retuned)},
                       {"max_batch", m.max_batch}});
    out.push_back({{"assumption", change.assumption},
                   {"change", change.change},
                   {"direction", change.direction},
                   {"plans", plans},
                   {"best", change.best}});
  }
  return out;
}

std::string factor_text(double spread) { return fmt::format("x or / {:.2f}", std::exp(spread)); }

std::string calibrations_text(const std::vector<models::Plan>& plans, const Asked& asked, Resources& resources) {
  std::string out = asked.calibration.empty() ? "shipped calibration" : asked.calibration;
  std::vector<models::Backend> seen;
  for (const models::Plan& plan : plans) {
    if (std::find(seen.begin(), seen.end(), plan.backend) != seen.end()) continue;
    seen.push_back(plan.backend);
    const auto& model = resources.backend(plan.backend);
    out += fmt::format("; {}: with kernel times exact, four measurements in five within TTFT {}, TPOT {}",
                       models::name(plan.backend), factor_text(model.ttft_spread), factor_text(model.tpot_spread));
  }
  return out;
}

// One row a kind of number: what it is, how it came about, from what.
Json rests_on_json(const Question& q, const std::vector<models::Plan>& plans, const Asked& asked,
                   Resources& resources) {
  const bool simulated = q.method == configurator::Method::simulate;
  Json out = Json::array();
  const auto row = [&](const char* number, const std::string& how, const std::string& from) {
    out.push_back({{"number", number}, {"how", how}, {"from", from}});
  };
  row("TTFT, TPOT, throughput of the ranked plans", simulated ? "simulated" : "closed forms",
      simulated ? "request by request, seed 1; lengths vary by 10 % around the nominal ones" : "mean-field queue");
  row("Front of all priced plans", "closed forms", "mean-field queue, for the mean");
  row("Bands", "80 %", "kernel times' own bands and the calibration's residual, taken as independent");
  row("Kernel times", "see the parts of a step",
      asked.database.empty() ? "shipped performance database" : asked.database);
  row("Engine overheads", "fitted", calibrations_text(plans, asked, resources));
  std::vector<std::string> systems = {q.system};
  if (!q.decode_system.empty() && q.decode_system != q.system) systems.push_back(q.decode_system);
  for (const std::string& name : systems) {
    const models::System& system = resources.system(name);
    row("Hardware rates and memory", "datasheet", fmt::format("{}: {}", system.gpu, system.source));
  }
  row("Weights and KV cache", "counted", "from the shapes in the model's configuration");
  row("Activations, buffers, runtime memory", "estimated", "docs/models.md");
  if (const auto price = resources.system(q.system).price_per_gpu_hour)
    row("Price", "given", fmt::format("{} per GPU and hour", *price));
  return out;
}

std::vector<std::string> plan_files(const Answer& found, const Asked& asked) {
  std::vector<std::string> out;
  const std::string dir = asked.out_dir.empty() || found.plans.empty() ? "" : asked.out_dir + "/";
  for (size_t i = 0; i < std::max(found.plans.size(), found.nearest.size()); ++i)
    out.push_back(dir.empty() || i == 0 ? dir + "plan.json" : fmt::format("{}plans/{}.json", dir, i + 1));
  return out;
}

}  // namespace

std::string shell_line(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + generators::shell_word(word);
  return out;
}

Json report_json(const Question& question, const Answer& found, const Json& answer, const Asked& asked,
                 Resources& resources) {
  const bool met = !found.plans.empty();
  const std::vector<Ranked>& listed = met ? found.plans : found.nearest;
  Json plans = chosen_list(listed, answer[met ? "plans" : "nearest"], plan_files(found, asked), resources);
  std::vector<models::Plan> studied;
  for (size_t i = 0; i < std::min(listed.size(), kMostFelt); ++i) studied.push_back(listed[i].plan);
  add_felt(plans, studied, resources);
  if (studied.size() > kMostStudied) studied.resize(kMostStudied);
  return {{"question", answer["question"]},
          {"goal", question.goal == configurator::Goal::fewest_gpus ? "fewest_gpus" : "throughput_per_gpu"},
          {"method", question.method == configurator::Method::simulate ? "simulate" : "analytic"},
          {"met", met},
          {"plans", std::move(plans)},
          {"front", front_json(found, answer["pareto"], resources)},
          {"sensitivity", sensitivity_json(studied, question.goal, resources)},
          {"searched", answer["searched"]},
          {"rests_on", rests_on_json(question, studied, asked, resources)},
          {"warnings", cautions(question, resources)},
          {"command", shell_line(asked.command)}};
}

}  // namespace drydock::cli
