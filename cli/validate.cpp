#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/question.h"
#include "configurator/points.h"
#include "core/csv.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::cli {
namespace {

using configurator::ErrorSummary;

std::string one(double value) { return fmt::format("{:.1f}", value); }

std::string error_text(const ErrorSummary::Figure& f) { return one(f.mape) + "/" + one(f.median); }

void add_row(Table& table, const std::string& name, const ErrorSummary& e) {
  const double coverage = e.rows > 0 ? 100.0 * static_cast<double>(e.predicted) / static_cast<double>(e.rows) : 0;
  table.row({name, std::to_string(e.rows), fmt::format("{:.0f}", coverage), error_text(e.ttft), one(e.ttft.bias),
             fmt::format("{:.0f}", e.ttft.in_band), error_text(e.tpot), one(e.tpot.bias),
             fmt::format("{:.0f}", e.tpot.in_band)});
}

// "model=meta-llama/Llama-3.1-70B": what the value is shows without the column's name.
std::string value_of(const std::string& group) { return group.substr(group.find('=') + 1).substr(0, 34); }

core::Json figure(const ErrorSummary::Figure& f) {
  return {{"mape", f.mape}, {"median", f.median}, {"bias", f.bias}, {"within20", f.within20}, {"in_band", f.in_band}};
}

core::Json summary(const ErrorSummary& e) {
  return {{"rows", e.rows}, {"predicted", e.predicted}, {"ttft", figure(e.ttft)}, {"tpot", figure(e.tpot)}};
}

void print(const configurator::Validation& v) {
  Table table({"", "rows", "cover", "TTFT error", "bias", "band", "TPOT error", "bias", "band"}, "lrrrrrrrr");
  add_row(table, "all rows", v.all);
  add_row(table, "clean rows", v.clean);
  for (const auto& [name, errors] : v.groups) add_row(table, value_of(name), errors);
  fmt::print(
      "Percent. error: mean/median of its size; bias: median with sign; band: truths inside the 80% band.\n"
      "Groups and regret are over rows without spec_doubt.\n{}",
      table.text(""));
  fmt::print("\nChoosing by prediction: {} choices lose {:.1f}% of the best throughput per GPU, {} miss the target\n",
             v.regret.choices, v.regret.mean_loss, v.regret.misses);
  if (v.readings.empty()) return;
  fmt::print("Rows read by a rule (docs/accuracy.md):\n");
  for (const auto& [name, rows] : v.readings) fmt::print("  {:5} {}\n", rows, name);
}

}  // namespace

void add_validate(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("validate", "how far predictions are from measured points");
  const auto points = std::make_shared<std::string>();
  const auto method = std::make_shared<std::string>("simulate");
  const auto out = std::make_shared<std::string>();
  command->add_option("--out", *out, "CSV of the points with their predictions, for `drydock plot`")->type_name("FILE");
  command->add_option("--points", *points, "CSV of deployments with ttft_ms and tpot_ms")->type_name("FILE");
  command->add_option("--method", *method, "simulate, or analytic: closed forms")->capture_default_str();
  add_common(*command, context);
  command->footer("Example:\n  drydock validate --points measured.csv");
  command->callback([=, &context] {
    if (points->empty()) throw core::Error("--points is missing; it names the CSV of measured points");
    configurator::Resources resources(context.database, context.calibration);
    const core::Csv csv = core::Csv::read(*points);
    csv.require({"ttft_ms", "tpot_ms"});
    const configurator::Method how = parse_method(*method);
    const auto predictions = configurator::predict_points(csv, resources, how);
    const configurator::Validation v = configurator::validate(csv, predictions);
    if (!out->empty()) core::write_file(*out, configurator::predictions_csv(csv, predictions));
    if (!context.json) return print(v);
    core::Json groups = core::Json::object();
    for (const auto& [name, errors] : v.groups) groups[name] = summary(errors);
    print_json(
        "drydock.validate",
        {{"all", summary(v.all)},
         {"clean", summary(v.clean)},
         {"groups", groups},
         {"readings", v.readings},
         {"regret", {{"choices", v.regret.choices}, {"mean_loss", v.regret.mean_loss}, {"misses", v.regret.misses}}}});
  });
}

}  // namespace drydock::cli
