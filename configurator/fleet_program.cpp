#include "configurator/fleet_program.h"

#include <algorithm>
#include <cmath>

#include "configurator/integer_program.h"

namespace drydock::configurator {
namespace {

// Rows are in shares of a demand; a sum of doubles that is meant to be 1 may miss it by rounding.
constexpr double kAllOfIt = 1 - 1e-9;

// Rows: one a model (share of its demand), then one a GPU type (GPUs used).
IntegerProgram units_of(const FleetProblem& problem, bool bounded_by_stock) {
  IntegerProgram out;
  const size_t models = problem.demand.size();
  for (size_t i = 0; i < models; ++i) out.rows.push_back({kAllOfIt, INFINITY});
  for (const int64_t gpus : problem.stock) out.rows.push_back({-INFINITY, static_cast<double>(gpus)});
  for (const FleetUnit& unit : problem.units) {
    IntegerProgram::Column column;
    const double share = unit.rate / problem.demand[unit.model];
    column.cost = unit.cost;
    column.most = std::ceil(1 / share);
    column.entries.emplace_back(unit.model, share);
    for (size_t s = 0; s < unit.gpus.size(); ++s) {
      if (unit.gpus[s] == 0) continue;
      if (bounded_by_stock) column.most = std::min(column.most, static_cast<double>(problem.stock[s] / unit.gpus[s]));
      column.entries.emplace_back(models + s, static_cast<double>(unit.gpus[s]));
    }
    out.columns.push_back(std::move(column));
  }
  return out;
}

void free_of_cost(IntegerProgram& program) {
  for (auto& column : program.columns) column.cost = 0;
}

// The largest share of the demands of `models` that fits, with all other demands in full; nullopt: even none does not.
std::optional<double> largest_share(const FleetProblem& problem, const std::vector<size_t>& models) {
  IntegerProgram program = units_of(problem, true);
  free_of_cost(program);
  IntegerProgram::Column share{-1, 1, false, {}};
  for (const size_t model : models) {
    program.rows[model].low = 0;
    share.entries.emplace_back(model, -1);
  }
  program.columns.push_back(share);
  const IntegerAnswer answer = minimum(program);
  return answer.feasible ? std::optional(answer.x.back()) : std::nullopt;
}

// The fewest GPUs to add, of the types in `types` alone; as many numbers as there are types in the stock.
std::optional<std::vector<int64_t>> fewest_more(const FleetProblem& problem, const std::vector<size_t>& types) {
  constexpr double kMostMore = 1e6;
  IntegerProgram program = units_of(problem, false);
  free_of_cost(program);
  for (const size_t type : types) program.columns.push_back({1, kMostMore, true, {{problem.demand.size() + type, -1}}});
  const IntegerAnswer answer = minimum(program);
  if (!answer.feasible) return std::nullopt;
  std::vector<int64_t> out(problem.stock.size());
  for (size_t i = 0; i < types.size(); ++i) out[types[i]] = static_cast<int64_t>(answer.x[problem.units.size() + i]);
  return out;
}

std::vector<size_t> all_of(size_t n) {
  std::vector<size_t> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = i;
  return out;
}

}  // namespace

FleetChoice cheapest(const FleetProblem& problem) {
  const IntegerAnswer answer = minimum(units_of(problem, true));
  FleetChoice out;
  out.feasible = answer.feasible;
  out.cost = answer.value;
  out.bound = answer.bound;
  for (const double x : answer.x) out.counts.push_back(static_cast<int64_t>(x));
  return out;
}

FleetShortage shortage(const FleetProblem& problem) {
  FleetShortage out;
  const size_t models = problem.demand.size(), types = problem.stock.size();
  out.share = largest_share(problem, all_of(models)).value_or(0);
  for (size_t i = 0; i < models; ++i) out.share_of.push_back(largest_share(problem, {i}));
  const auto together = fewest_more(problem, all_of(types));
  out.possible = together.has_value();
  if (together) out.more = *together;
  for (size_t i = 0; i < types; ++i) {
    const auto alone = together ? fewest_more(problem, {i}) : std::nullopt;
    out.more_of_one.push_back(alone ? std::optional((*alone)[i]) : std::nullopt);
  }
  return out;
}

}  // namespace drydock::configurator
