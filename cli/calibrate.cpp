#include "configurator/calibrate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>

#include "cli/command.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::cli {
namespace {

using configurator::Calibration;
using configurator::Knob;
using configurator::LeaveOut;
using configurator::MeasuredPoint;
using configurator::PointError;

struct CalibrateOptions {
  std::string points, out, leave_out = "point";
  bool full = false, no_check = false;
};

struct Size {
  double mape = 0, median = 0, band = 0;  // percent; band: 80 % of |ln| are below it
};

Size size_of(const std::vector<PointError>& errors, const std::vector<MeasuredPoint>& points,
             double PointError::*figure) {
  std::vector<double> sizes, logs;
  for (const PointError& e : errors) {
    if (points[e.point].doubt || !std::isfinite(e.*figure)) continue;
    sizes.push_back(std::abs(e.*figure - 1) * 100);
    logs.push_back(std::abs(std::log(e.*figure)));
  }
  if (sizes.empty()) return {};
  Size out;
  for (const double s : sizes) out.mape += s / static_cast<double>(sizes.size());
  std::sort(sizes.begin(), sizes.end());
  std::sort(logs.begin(), logs.end());
  const size_t n = sizes.size();
  out.median = n % 2 ? sizes[n / 2] : (sizes[n / 2 - 1] + sizes[n / 2]) / 2;
  out.band = logs[static_cast<size_t>(0.8 * static_cast<double>(n - 1))];
  return out;
}

LeaveOut leave_out_of(const std::string& text) {
  if (text == "point" || text == "none") return LeaveOut::point;
  if (text == "model") return LeaveOut::model;
  if (text == "system") return LeaveOut::system;
  throw core::Error("--leave-out '" + text.substr(0, 60) + "': want point, model, system or none");
}

std::string backends_text(uint8_t mask) {
  if (mask == (1 << models::kEngines) - 1) return "all";
  std::string out;
  for (int b = 0; b < models::kBackends; ++b)
    if (mask >> b & 1) out += (out.empty() ? "" : ",") + std::string(models::name(static_cast<models::Backend>(b)));
  return out;
}

// Tells on a terminal how far the fit is; quiet in a pipe.
std::function<void(int)> progress(const char* what) {
  if (isatty(STDERR_FILENO) == 0) return {};
  return [what](int evaluation) {
    fmt::print(stderr, "\r{}: {} evaluations", what, evaluation);
    std::fflush(stderr);
  };
}

core::Json size_json(const Size& s) { return {{"mape", s.mape}, {"median", s.median}, {"ln_80", s.band}}; }

struct CalibrateResult {
  std::vector<MeasuredPoint> points;
  std::vector<Knob> knobs;
  Calibration fitted;
  std::vector<PointError> held;

  core::Json json() const;
  void print(const CalibrateOptions& options) const;
};

core::Json CalibrateResult::json() const {
  core::Json figures = core::Json::array(), doubts = core::Json::array(), groups = core::Json::object();
  for (size_t k = 0; k < knobs.size(); ++k)
    figures.push_back({{"figure", knobs[k].name},
                       {"backends", backends_text(knobs[k].backends)},
                       {"prior", knobs[k].start},
                       {"prior_width", knobs[k].width},
                       {"value", fitted.values[k]}});
  for (const MeasuredPoint& p : points)
    if (p.doubt) doubts.push_back({{"line", p.line}, {"reason", *p.doubt}});
  const auto pair = [&](const std::vector<PointError>& errors) {
    return core::Json{{"ttft", size_json(size_of(errors, points, &PointError::ttft))},
                      {"tpot", size_json(size_of(errors, points, &PointError::tpot))}};
  };
  std::map<std::string, std::vector<PointError>> by_group;
  for (const PointError& e : held) by_group[points[e.point].group].push_back(e);
  if (by_group.size() < 40)
    for (const auto& [name, errors] : by_group) groups[name] = pair(errors);
  return {{"points", points.size()},       {"refused", doubts},           {"figures", figures},
          {"before", pair(fitted.before)}, {"after", pair(fitted.after)}, {"left_out", pair(held)},
          {"left_out_groups", groups}};
}

void CalibrateResult::print(const CalibrateOptions& options) const {
  Table errors({"", "points", "TTFT error %", "median", "80% of ln", "TPOT error %", "median", "80% of ln"},
               "lrrrrrrr");
  const auto row = [&](const std::string& name, const std::vector<PointError>& of) {
    const Size a = size_of(of, points, &PointError::ttft), b = size_of(of, points, &PointError::tpot);
    errors.row({name, std::to_string(of.size()), human(a.mape), human(a.median), human(a.band), human(b.mape),
                human(b.median), human(b.band)});
  };
  row("before", fitted.before);
  row("fitted", fitted.after);
  if (!held.empty()) row("left out (by " + options.leave_out + ")", held);
  std::map<std::string, std::vector<PointError>> by_group;
  for (const PointError& e : held) by_group[points[e.point].group].push_back(e);
  if (options.leave_out == "model" || options.leave_out == "system")
    for (const auto& [name, of] : by_group) row("  without " + name.substr(0, 30), of);
  fmt::print("{}\n", errors.text());
  Table figures({"figure", "backends", "prior", "width", "value"}, "llrrr");
  for (size_t k = 0; k < knobs.size(); ++k)
    figures.row({knobs[k].name, backends_text(knobs[k].backends), human(knobs[k].start), human(knobs[k].width),
                 fmt::format("{:.4g}", fitted.values[k])});
  fmt::print("{}", figures.text());
  for (const MeasuredPoint& p : points)
    if (p.doubt) fmt::print("\nline {} is not physical and was not fitted: {}", p.line, *p.doubt);
  fmt::print("\nWhat to expect of deployments not measured is the left-out error, not the fitted one.\n");
}

CalibrateResult calibrate(const CalibrateOptions& options, configurator::Resources& resources) {
  CalibrateResult r;
  const core::Csv csv = core::Csv::read(options.points);
  r.points = configurator::measured_points(csv, leave_out_of(options.leave_out), resources);
  uint8_t backends = 0;
  int usable = 0;
  for (MeasuredPoint& p : r.points) {
    if (options.no_check) p.doubt.reset();
    if (p.doubt) continue;
    backends = static_cast<uint8_t>(backends | 1 << static_cast<int>(p.plan.backend));
    ++usable;
  }
  if (usable == 0) {
    const MeasuredPoint& first = r.points.front();
    throw core::Error(csv.origin() + ": no point is physical; line " + std::to_string(first.line) + ": " +
                      *first.doubt);
  }
  if (options.full) configurator::weigh_by_deployment(r.points);
  r.knobs = options.full ? configurator::all_knobs() : configurator::user_knobs(backends);
  r.fitted = configurator::fit(r.points, r.knobs, resources, progress("fit"));
  constexpr int kMostFolds = 20;
  if (usable > 1 && options.leave_out != "none")
    r.held = configurator::left_out(r.points, r.knobs, r.fitted, resources, kMostFolds, progress("left out"));
  if (isatty(STDERR_FILENO) != 0) fmt::print(stderr, "\r{:40}\r", "");
  return r;
}

}  // namespace

void add_calibrate(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("calibrate", "fit a few physical scales to measured points of yours");
  const auto options = std::make_shared<CalibrateOptions>();
  command->add_option("--points", options->points, "CSV of measured deployments, as validate reads it")
      ->type_name("FILE");
  command->add_option("--out", options->out, "where to write the calibration")->type_name("FILE");
  command
      ->add_option("--leave-out", options->leave_out, "what to leave out to tell the error: point, model, system, none")
      ->capture_default_str();
  command->add_flag("--full", options->full, "fit all overheads and factors, from uncalibrated starts");
  command->add_flag("--no-check", options->no_check, "fit points that break physics, too");
  add_common(*command, context);
  command->footer(
      "Example:\n  drydock calibrate --points mine.csv --out mine.json\n"
      "  drydock recommend ... --calibration mine.json");
  command->callback([=, &context] {
    if (options->points.empty()) throw core::Error("--points is missing; it names the CSV of measured points");
    if (options->out.empty()) throw core::Error("--out is missing; it names the calibration to write");
    configurator::Resources resources(context.database, context.calibration);
    const CalibrateResult result = calibrate(*options, resources);
    core::write_file(options->out, simulator::to_json(result.fitted.backends));
    if (context.json) return print_json("drydock.calibrate", result.json());
    result.print(*options);
    fmt::print("Written to {}. Use it: --calibration {}\n", options->out, options->out);
  });
}

}  // namespace drydock::cli
