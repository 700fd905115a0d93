#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli/answer.h"
#include "cli/command.h"
#include "cli/plan_flags.h"
#include "cli/question.h"
#include "configurator/points.h"
#include "configurator/predict.h"
#include "core/csv.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::cli {
namespace {

struct EstimateOptions {
  std::string plan, points, out, isl, osl, concurrency, rate, prefix_hit, method = "simulate";
  PlanFlags flags;
};

// The plan's own workload, with what was given in its place.
models::Plan asked(const EstimateOptions& o) {
  models::Plan plan = models::read_plan(o.plan);
  models::Workload& w = plan.workload;
  if (!o.isl.empty()) w.isl = parse_count(o.isl, "--isl", simulator::kMostTokens);
  if (!o.osl.empty()) w.osl = parse_count(o.osl, "--osl", simulator::kMostTokens);
  if (!o.prefix_hit.empty()) w.prefix_hit = parse_share(o.prefix_hit, "--prefix-hit");
  if (!o.concurrency.empty() && !o.rate.empty()) throw core::Error("--rate and --concurrency: give one of them");
  if (!o.concurrency.empty())
    w.concurrency = static_cast<double>(parse_count(o.concurrency, "--concurrency", kMostInFlight)), w.rate.reset();
  if (!o.rate.empty()) w.rate = parse_positive(o.rate, "--rate", kMostRate, kLeastRate), w.concurrency.reset();
  return plan;
}

void check_context(const models::Plan& plan, configurator::Resources& resources) {
  const models::Architecture& a = resources.model(plan.model);
  const models::Workload& w = plan.workload;
  if (w.isl + w.osl > a.max_context)
    throw core::Error(fmt::format("--isl {} and --osl {} are more than the context of {}, {} tokens", w.isl, w.osl,
                                  a.name, a.max_context));
}

void print_prediction(const models::Plan& plan) {
  const models::Prediction& p = *plan.prediction;
  std::string pools;
  for (const models::Pool& pool : plan.pools) pools += (pools.empty() ? "" : " + ") + pool_text(pool);
  fmt::print("{} {} on {}: {}, {} GPUs\n\n", plan.model, plan.precision, models::name(plan.backend), pools,
             plan.gpus());
  Table table({"figure", "value", "80% band"}, "lrr");
  const auto row = [&](const char* name, const core::Figure& f) {
    table.row({name, human(f.value), human(f.low) + " .. " + human(f.high)});
  };
  row("TTFT ms", p.ttft_ms);
  row("TPOT ms", p.tpot_ms);
  row("request ms", p.request_latency_ms);
  row("requests/s", p.requests_per_s);
  row("tokens/s/user", p.tokens_per_s_per_user);
  row("tokens/s/GPU", p.tokens_per_s_per_gpu);
  row("GPU hours/Mtoken", p.gpu_hours_per_million_tokens);
  if (p.cost_per_million_tokens) row("cost/Mtoken", *p.cost_per_million_tokens);
  fmt::print("{}\n", table.text());
}

void write_plan(const models::Plan& plan, configurator::Resources& resources, const std::string& dir) {
  write_placements(configurator::expert_placements(plan, resources), dir);
  core::write_file(std::filesystem::path(dir) / "plan.json", models::to_json(plan));
}

void estimate_plan(const EstimateOptions& o, Context& context) {
  configurator::Resources resources(context.database, context.calibration);
  models::Plan plan = asked(o);
  check_context(plan, resources);
  apply(o.flags, resources.model(plan.model), o.plan, plan.speculative, plan.experts);
  plan.prediction = configurator::predict(plan, resources, configurator::Fit::required, parse_method(o.method));
  if (!plan.prediction)
    throw core::Error(plan.workload.rate
                          ? fmt::format("--rate {}: is more than the plan can serve", *plan.workload.rate)
                          : "the plan can't keep up with its workload; ask for less --concurrency");
  const auto details = configurator::explain(plan, resources);
  if (!o.out.empty()) {
    core::make_output_dir(o.out);
    write_plan(plan, resources, o.out);
  }
  if (!context.json) {
    print_prediction(plan);
    return print_details(details);
  }
  core::Json out = plan_json(plan);
  out["workload"] = {{"isl", plan.workload.isl}, {"osl", plan.workload.osl}, {"prefix_hit", plan.workload.prefix_hit}};
  if (plan.workload.concurrency) out["workload"]["concurrency"] = *plan.workload.concurrency;
  if (plan.workload.rate) out["workload"]["rate"] = *plan.workload.rate;
  out["breakdown"] = detail_json(details);
  print_json("drydock.estimate", out);
}

void estimate_points(const EstimateOptions& o, Context& context) {
  if (o.out.empty()) throw core::Error("--out is missing; it names the CSV for the predictions");
  configurator::Resources resources(context.database, context.calibration);
  const core::Csv points = core::Csv::read(o.points);
  const auto predictions = configurator::predict_points(points, resources, parse_method(o.method));
  core::write_file(o.out, configurator::predictions_csv(points, predictions));
  int64_t predicted = 0;
  for (const auto& p : predictions) predicted += p.prediction.has_value();
  if (context.json)
    print_json("drydock.points", {{"rows", points.rows()}, {"predicted", predicted}, {"out", o.out}});
  else
    fmt::print("{} of {} rows predicted, written to {}\n", predicted, points.rows(), o.out);
}

}  // namespace

void add_estimate(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("estimate", "what one plan, or many rows of points, would do");
  const auto o = std::make_shared<EstimateOptions>();
  command->add_option("--plan", o->plan, "plan.json")->type_name("FILE");
  command->add_option("--points", o->points, "CSV of deployments, a row each")->type_name("FILE");
  command->add_option(
      "--out", o->out,
      "of --points: CSV for the predictions; of --plan: folder for the plan as asked for, and where its experts lie");
  command->add_option("--isl", o->isl, "input tokens (default: the plan's)");
  command->add_option("--osl", o->osl, "output tokens (default: the plan's)");
  command->add_option("--concurrency", o->concurrency, "requests in flight (default: the plan's)");
  command->add_option("--rate", o->rate, "requests/s (default: the plan's)");
  command->add_option("--prefix-hit", o->prefix_hit, "share of the prompt that is cached (default: the plan's)");
  command->add_option("--method", o->method, "simulate, or analytic: closed forms, for the mean")
      ->capture_default_str();
  add_plan_flags(*command, o->flags, "the plan's");
  add_common(*command, context);
  command->footer(
      "Examples:\n  drydock estimate --plan deployment/plan.json --concurrency 64\n"
      "  drydock estimate --points points.csv --out predictions.csv");
  command->callback([=, &context] {
    if (o->plan.empty() == o->points.empty()) throw core::Error("--plan or --points: give one of them");
    const bool changes = !(o->isl + o->osl + o->concurrency + o->rate + o->prefix_hit).empty() || o->flags.any();
    if (!o->points.empty() && changes)
      throw core::Error(
          "--points: its rows state the workload; --isl, --osl, --concurrency, --rate, --prefix-hit, --speculative and "
          "--expert-... go with --plan");
    if (o->plan.empty())
      estimate_points(*o, context);
    else
      estimate_plan(*o, context);
  });
}

}  // namespace drydock::cli
