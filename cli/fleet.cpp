// drydock fleet: plans for several models on a stock of GPUs of several types.
#include "configurator/fleet.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <set>

#include "cli/answer.h"
#include "cli/command.h"
#include "cli/report.h"
#include "core/error.h"
#include "core/file.h"
#include "generators/text.h"

namespace drydock::cli {
namespace {

namespace fs = std::filesystem;
using configurator::Fleet;
using configurator::FleetAnswer;
using configurator::FleetDeployment;
using core::Json;

constexpr const char* kFleetFile = "fleet.json";

struct FleetOptions {
  std::string yaml, out;
};

// "chat.json"; a model on several plans gets "chat-1.json", "chat-2.json". A name that another file has already, that
// of the answer included, gets a hash of the model's.
std::vector<std::string> plan_names(const Fleet& fleet, const FleetAnswer& answer) {
  std::vector<std::string> out;
  std::set<std::string> taken = {kFleetFile};
  for (size_t i = 0; i < answer.deployments.size(); ++i) {
    const size_t model = answer.deployments[i].model;
    int before = 0, all = 0;
    for (size_t j = 0; j < answer.deployments.size(); ++j) {
      if (answer.deployments[j].model != model) continue;
      ++all;
      before += j < i;
    }
    const std::string& name = fleet.models[model].name;
    const std::string end = (all > 1 ? fmt::format("-{}", before + 1) : "") + ".json";
    std::string file = generators::safe_name(name) + end;
    constexpr int kHashDigits = 8;
    if (taken.contains(file))
      file = generators::safe_name(name) + "-" + generators::hex(generators::fnv1a(name), kHashDigits) + end;
    taken.insert(file);
    out.push_back(std::move(file));
  }
  return out;
}

double gap_of(const FleetAnswer& a) { return a.cost > 0 ? std::max(0.0, (a.cost - a.bound) / a.cost) : 0; }

Json stock_json(const Fleet& fleet, const FleetAnswer& answer, configurator::Resources& resources) {
  Json out = Json::array();
  for (size_t s = 0; s < fleet.stock.size(); ++s) {
    const auto& stock = fleet.stock[s];
    out.push_back({{"system", stock.system.text},
                   {"gpus", stock.gpus},
                   {"used", answer.used[s]},
                   {"left", stock.gpus - answer.used[s]}});
    if (const auto price = resources.system(stock.system.text).price_per_gpu_hour) out.back()["price"] = *price;
  }
  return out;
}

Json shortage_json(const Fleet& fleet, const configurator::FleetShortage& s) {
  Json models = Json::array(), stock = Json::array();
  for (size_t i = 0; i < fleet.models.size(); ++i) {
    models.push_back({{"name", fleet.models[i].name}});
    if (s.share_of[i]) models.back()["share_once_others_are_served"] = *s.share_of[i];
  }
  for (size_t i = 0; i < fleet.stock.size(); ++i) {
    stock.push_back({{"system", fleet.stock[i].system.text}, {"more_together", s.more.empty() ? 0 : s.more[i]}});
    if (s.more_of_one[i]) stock.back()["more_of_it_alone"] = *s.more_of_one[i];
  }
  return {{"share_of_every_rate", s.share}, {"models", models}, {"stock", stock}};
}

Json fleet_json(const Fleet& fleet, const FleetAnswer& a, configurator::Resources& resources) {
  Json deployments = Json::array(), hopeless = Json::array();
  const std::vector<std::string> names = plan_names(fleet, a);
  for (size_t i = 0; i < a.deployments.size(); ++i) {
    const FleetDeployment& d = a.deployments[i];
    deployments.push_back({{"name", fleet.models[d.model].name},
                           {"file", names[i]},
                           {"units", d.units},
                           {"traffic_share", d.share},
                           {"rate", d.rate},
                           {"capacity", d.capacity},
                           {"cost_per_hour", d.cost},
                           {"plan", core::parse_json(models::to_json(d.plan), "plan")}});
  }
  for (const auto& [model, reason] : a.hopeless)
    hopeless.push_back({{"name", fleet.models[model].name}, {"reason", reason}});
  Json out = {{"feasible", a.feasible}, {"cost_in", a.priced ? "price" : "gpus"}};
  if (a.feasible) {
    out["cost_per_hour"] = a.cost;
    out["bound_per_hour"] = a.bound;
    out["gap"] = gap_of(a);
  }
  out["rounds"] = a.rounds;
  out["candidates"] = a.candidates;
  out["deployments"] = deployments;
  out["stock"] = stock_json(fleet, a, resources);
  out["no_plan"] = hopeless;
  if (a.shortage) out["shortage"] = shortage_json(fleet, *a.shortage);
  return out;
}

std::string workers_text(const models::Plan& plan) {
  std::string out;
  for (const models::Pool& pool : plan.pools) out += (out.empty() ? "" : " + ") + pool_text(pool);
  return out;
}

std::string types_text(const models::Plan& plan) {
  std::string out = plan.pools.front().system;
  if (plan.pools.back().system != out) out += "+" + plan.pools.back().system;
  return out;
}

std::string shortened(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most > 0 ? most - 1 : 0;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // a character of several bytes is kept whole
  return text.substr(0, end) + "~";
}

// Cuts the cells of the first columns and of the workers', the widest first, until a line has at most 100 columns.
void fit_fleet_rows(std::vector<std::vector<std::string>>& rows) {
  constexpr size_t kMostWidth = 100, kCut[] = {0, 1, 4};  // model, GPU type, workers
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  constexpr size_t kLeastWidth = 4;
  while (std::accumulate(widths.begin(), widths.end(), 2 * (widths.size() - 1)) > kMostWidth) {
    const size_t widest =
        *std::max_element(std::begin(kCut), std::end(kCut), [&](size_t x, size_t y) { return widths[x] < widths[y]; });
    if (widths[widest] <= kLeastWidth) break;  // the figures alone are wider
    --widths[widest];
  }
  for (auto& row : rows)
    for (const size_t i : kCut) row[i] = shortened(row[i], widths[i]);
}

void print_deployments(const Fleet& fleet, const FleetAnswer& a) {
  std::vector<std::vector<std::string>> rows{{"model", "GPU type", "GPUs", "backend", "workers", "share", "req/s", "of",
                                              "TTFT", "TPOT", a.priced ? "cost/h" : "GPUs"}};
  for (const FleetDeployment& d : a.deployments) {
    const models::Prediction& p = *d.plan.prediction;
    rows.push_back({fleet.models[d.model].name, types_text(d.plan), std::to_string(d.plan.gpus()),
                    std::string(models::name(d.plan.backend)), workers_text(d.plan), percent(d.share), human(d.rate),
                    human(d.capacity), human((p.tail ? p.tail->ttft_ms : p.ttft_ms).value),
                    human((p.tail ? p.tail->tpot_ms : p.tpot_ms).value), human(d.cost)});
  }
  fit_fleet_rows(rows);
  Table table(rows.front(), "llrllrrrrrr");
  for (size_t i = 1; i < rows.size(); ++i) table.row(rows[i]);
  fmt::print("{}", table.text(""));
}

constexpr size_t kMostFleetName = 40;  // of a name in a sentence

void print_stock(const Fleet& fleet, const FleetAnswer& a) {
  constexpr size_t kMostLine = 99;  // and the comma
  std::string line = "left: ";
  for (size_t s = 0; s < fleet.stock.size(); ++s) {
    const std::string one = fmt::format("{} of {} {}", fleet.stock[s].gpus - a.used[s], fleet.stock[s].gpus,
                                        shortened(fleet.stock[s].system.text, kMostFleetName));
    if (s > 0 && line.size() + 2 + one.size() > kMostLine) {
      fmt::print("{},\n", line);
      line = "      " + one;
    } else {
      line += (s > 0 ? ", " : "") + one;
    }
  }
  fmt::print("{}\n", line);
}

void print_shortage(const Fleet& fleet, const configurator::FleetShortage& s) {
  fmt::print("The stock is too small: it serves {} of every rate.\n", percent(s.share));
  for (size_t i = 0; i < fleet.models.size(); ++i)
    if (s.share_of[i])
      fmt::print("  with all others served, {} gets {} of its rate\n", shortened(fleet.models[i].name, kMostFleetName),
                 percent(*s.share_of[i]));
  std::string together;
  for (size_t i = 0; i < fleet.stock.size(); ++i)
    if (!s.more.empty() && s.more[i] > 0)
      together += fmt::format("{}{} {}", together.empty() ? "" : " and ", s.more[i],
                              shortened(fleet.stock[i].system.text, kMostFleetName));
  if (!together.empty()) fmt::print("It would be enough with {} more (the fewest GPUs).\n", together);
  for (size_t i = 0; i < fleet.stock.size(); ++i)
    if (s.more_of_one[i])
      fmt::print("  of {} alone: {} more\n", shortened(fleet.stock[i].system.text, kMostFleetName), *s.more_of_one[i]);
    else
      fmt::print("  of {} alone: no number is enough\n", shortened(fleet.stock[i].system.text, kMostFleetName));
}

void print_fleet(const Fleet& fleet, const FleetAnswer& a, double wall_ms, const std::string& out) {
  fmt::print("{} models on {} types of GPU, {} candidates ({:.0f} ms)\n\n", fleet.models.size(), fleet.stock.size(),
             a.candidates, wall_ms);
  for (const auto& [model, reason] : a.hopeless)
    fmt::print("{}: no plan on any GPU in stock meets its targets; nearest: {}\n",
               shortened(fleet.models[model].name, kMostFleetName), reason);
  if (a.shortage) print_shortage(fleet, *a.shortage);
  if (!a.feasible) return;
  print_deployments(fleet, a);
  fmt::print("\n{} {} per hour; no choice among the candidates costs less than {} (gap {:.2g}%)\n",
             a.priced ? "cost" : "GPUs in use:", human(a.cost), human(a.bound), gap_of(a) * 100);
  print_stock(fleet, a);
  fmt::print("Each plan was simulated at its rate: {} program{} solved until all met their targets.\n", a.rounds,
             a.rounds == 1 ? "" : "s");
  if (out.empty())
    fmt::print("--out DIR writes the plans.\n");
  else
    fmt::print("Written to {}: fleet.json and a plan each. Next:\n  {}\n", out,
               shell_line({"drydock", "simulate", "--plan", out + "/" + plan_names(fleet, a).front()}));
}

void write_fleet(const fs::path& dir, const Fleet& fleet, const FleetAnswer& answer, const Json& json) {
  core::make_output_dir(dir);
  const std::vector<std::string> names = plan_names(fleet, answer);
  for (size_t i = 0; i < names.size(); ++i)
    core::write_file(dir / names[i], models::to_json(answer.deployments[i].plan));
  core::write_file(dir / kFleetFile, json.dump(2) + "\n");
}

void fleet_command(const FleetOptions& o, Context& context) {
  if (o.yaml.empty()) throw core::Error("fleet.yaml is missing; `drydock fleet --help` shows an example");
  const Fleet fleet = configurator::read_fleet(o.yaml);
  configurator::Resources resources(context.database, context.calibration);
  const auto begin = std::chrono::steady_clock::now();
  const FleetAnswer answer = configurator::plan_fleet(fleet, resources);
  const double wall_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  Json json = {{"schema", "drydock.fleet"}, {"version", 1}};
  json.update(fleet_json(fleet, answer, resources));
  if (!o.out.empty() && answer.feasible) write_fleet(o.out, fleet, answer, json);
  if (context.json) {
    json["wall_ms"] = wall_ms;
    print_json("drydock.fleet", json);
  } else {
    print_fleet(fleet, answer, wall_ms, o.out);
  }
  context.exit_code = answer.feasible ? kOk : kNothingMeets;
}

}  // namespace

void add_fleet(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("fleet", "plans for several models on a stock of GPUs, at the lowest cost");
  const auto o = std::make_shared<FleetOptions>();
  command->add_option("yaml", o->yaml, "stock and models (docs/fleet.md)")->type_name("FILE");
  command->add_option("--out", o->out, "folder for fleet.json and a plan for each deployment")->type_name("DIR");
  add_common(*command, context);
  command->footer(
      "Example:\n  drydock fleet fleet.yaml --out fleet\n"
      "Exit codes: 0 done, 2 bad input, 3 the stock can't serve all within their targets");
  command->callback([=, &context] { fleet_command(*o, context); });
}

}  // namespace drydock::cli
