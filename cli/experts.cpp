// drydock experts: how evenly a plan's GPUs are loaded by its experts, and what moving them while serving is worth.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/plan_flags.h"
#include "configurator/predict.h"
#include "core/error.h"
#include "simulator/online_experts.h"

namespace drydock::cli {
namespace {

struct ExpertsOptions {
  std::string plan, steps = "5000", tokens, drift = "10", interval = "100", moves = "8", newest = "0.2", seed = "1";
  PlanFlags flags;
};

double parse_number(const std::string& text, std::string_view flag, double least, double most) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= least && value <= most))
    throw core::Error(fmt::format("{} '{}': want a number from {} to {}", flag, text.substr(0, 60), least, most));
  return value;
}

// One pool's answer: a step of `batch` sequences that takes step_us, experts_us of it in experts, were they even.
struct PoolBalance {
  configurator::PlacedExperts experts;
  simulator::ExpertBalance balance;
  simulator::ExpertDrift drift;
  double step_us = 0, experts_us = 0;

  double step_at(double imbalance) const { return step_us + experts_us * imbalance; }
  double copy_us() const { return balance.bytes_per_step / experts.bytes_per_s * 1e6; }
};

// Time of a step and of the experts in it, evenly loaded.
void price(const models::Plan& plan, configurator::Resources& resources, PoolBalance& out) {
  models::Plan even = plan;
  even.experts = {};
  for (const configurator::PoolDetail& detail : configurator::explain(even, resources)) {
    if (detail.role != out.experts.role ||
        (detail.role == models::Role::worker && detail.phase != models::Role::decode))
      continue;
    for (const simulator::OpShare& op : detail.ops) {
      out.step_us += op.us;
      if (op.module == models::Module::experts) out.experts_us += op.us;
    }
    if (out.drift.tokens == 0) out.drift.tokens = std::max<int64_t>(1, static_cast<int64_t>(detail.batch));
  }
}

std::vector<PoolBalance> balances(const ExpertsOptions& o, const models::Plan& plan,
                                  configurator::Resources& resources) {
  std::vector<PoolBalance> out;
  for (configurator::PlacedExperts& placed : configurator::placed_experts(plan, resources)) {
    PoolBalance one{std::move(placed), {}, {}};
    one.drift.steps = static_cast<int>(parse_count(o.steps, "--steps", 1'000'000));
    one.drift.tokens = o.tokens.empty() ? 0 : parse_count(o.tokens, "--tokens", 10'000'000);
    one.drift.share_per_1000_steps = parse_number(o.drift, "--drift", 0, 1000) / 100;
    one.drift.seed = static_cast<uint64_t>(parse_count(o.seed, "--seed", int64_t{1} << 53));
    price(plan, resources, one);
    scheduler::BalancerConfig config;
    config.cluster = one.experts.load->cluster();
    config.interval_steps = static_cast<int>(parse_count(o.interval, "--interval", 1'000'000));
    config.moves_per_step = static_cast<int>(parse_count(o.moves, "--moves", 1'000'000));
    config.newest_weight = parse_number(o.newest, "--newest", 1e-6, 1);
    config.bytes_per_expert = one.experts.bytes_per_expert;
    one.balance = simulator::drift_experts(*one.experts.load, config, one.drift);
    out.push_back(std::move(one));
  }
  if (out.empty())
    throw core::Error("--plan " + o.plan +
                      ": no pool spreads experts unevenly; want expert parallelism, and --expert-skew or "
                      "--expert-histogram where the plan has neither");
  return out;
}

core::Json pool_json(const PoolBalance& p) {
  const auto side = [&](double imbalance) {
    return core::Json{{"imbalance", imbalance}, {"step_us", p.step_at(imbalance)}};
  };
  return {{"role", name(p.experts.role)},
          {"experts", p.experts.load->experts()},
          {"slots", p.experts.load->slots()},
          {"tokens", p.drift.tokens},
          {"steps", p.drift.steps},
          {"contiguous", side(p.balance.contiguous)},
          {"fixed", side(p.balance.fixed)},
          {"online", side(p.balance.online)},
          {"oracle", side(p.balance.oracle)},
          {"moves", p.balance.moves},
          {"moved_bytes", p.balance.moved_bytes},
          {"copy_us_per_step", p.copy_us()},
          {"worst_copy_us", p.balance.worst_bytes_per_step / p.experts.bytes_per_s * 1e6}};
}

void print_pool(const PoolBalance& p) {
  fmt::print("{}: {} experts in {} slots, {} tokens a step, {} steps\n\n", name(p.experts.role),
             p.experts.load->experts(), p.experts.load->slots(), p.drift.tokens, p.drift.steps);
  Table table({"experts lie", "imbalance", "decode step us"}, "lrr");
  const auto row = [&](const char* how, double imbalance) {
    table.row({how, percent(imbalance), human(p.step_at(imbalance))});
  };
  row("in order, no replicas", p.balance.contiguous);
  row("placed once by EPLB", p.balance.fixed);
  row("moved while serving", p.balance.online);
  row("placed anew at each change", p.balance.oracle);
  fmt::print("{}\n{} copies, {}; they take the links {} us a step on average, {} us at worst.\n", table.text(),
             p.balance.moves, human_bytes(p.balance.moved_bytes), human(p.copy_us()),
             human(p.balance.worst_bytes_per_step / p.experts.bytes_per_s * 1e6));
  const double gain = p.step_at(p.balance.fixed) - p.step_at(p.balance.online);
  const auto told = [](double us) { return human(std::abs(us)) + " us a step " + (us >= 0 ? "saved" : "lost"); };
  fmt::print("Against EPLB once: {}; {} if no copy hides behind the step.\n", told(gain), told(gain - p.copy_us()));
}

void experts(const ExpertsOptions& o, Context& context) {
  configurator::Resources resources(context.database, context.calibration);
  models::Plan plan = models::read_plan(o.plan);
  apply(o.flags, resources.model(plan.model), o.plan, plan.speculative, plan.experts);
  const std::vector<PoolBalance> pools = balances(o, plan, resources);
  if (!context.json) {
    for (const PoolBalance& pool : pools) print_pool(pool);
    return;
  }
  core::Json out = core::Json::array();
  for (const PoolBalance& pool : pools) out.push_back(pool_json(pool));
  print_json("drydock.experts", {{"pools", out}});
}

}  // namespace

void add_experts(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("experts", "what moving experts while serving is worth (online EPLB)");
  const auto o = std::make_shared<ExpertsOptions>();
  command->add_option("--plan", o->plan, "plan.json")->required()->type_name("FILE");
  command->add_option("--steps", o->steps, "decode steps")->capture_default_str();
  command->add_option("--tokens", o->tokens, "tokens of a step, over all GPUs (default: the plan's batch)");
  command->add_option("--drift", o->drift, "% of a layer's experts that trade popularity in 1000 steps")
      ->capture_default_str();
  command->add_option("--interval", o->interval, "steps between two looks at the load")->capture_default_str();
  command->add_option("--moves", o->moves, "copies beside one step, over all layers")->capture_default_str();
  command->add_option("--newest", o->newest, "weight of the newest interval in the average")->capture_default_str();
  command->add_option("--seed", o->seed, "of the drift")->capture_default_str();
  add_plan_flags(*command, o->flags, "the plan's");
  add_common(*command, context);
  command->footer("Example:\n  drydock experts --plan plan.json --expert-skew 0.8 --expert-slots 288 --drift 20");
  command->callback([o, &context] { experts(*o, context); });
}

}  // namespace drydock::cli
