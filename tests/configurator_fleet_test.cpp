#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "configurator/fleet.h"
#include "configurator/integer_program.h"
#include "configurator/predict.h"
#include "core/random.h"
#include "tests/effort.h"

using namespace drydock;
using namespace drydock::configurator;

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Every combination of counts that could matter: more of a unit than serves the whole demand never does.
void each_combination(const FleetProblem& p, const std::function<void(const std::vector<int64_t>&)>& body) {
  std::vector<int64_t> counts(p.units.size());
  const std::function<void(size_t)> choose = [&](size_t unit) {
    if (unit == counts.size()) return body(counts);
    const FleetUnit& u = p.units[unit];
    const auto most = static_cast<int64_t>(std::ceil(p.demand[u.model] / u.rate));
    for (counts[unit] = 0; counts[unit] <= most; ++counts[unit]) choose(unit + 1);
    counts[unit] = 0;
  };
  choose(0);
}

struct Tally {
  bool served = true;  // every demand
  double cost = 0;
  std::vector<int64_t> used;
};

Tally tally(const FleetProblem& p, const std::vector<int64_t>& counts) {
  Tally out;
  std::vector<double> rate(p.demand.size());
  out.used.assign(p.stock.size(), 0);
  for (size_t i = 0; i < counts.size(); ++i) {
    const auto n = static_cast<double>(counts[i]);
    rate[p.units[i].model] += n * p.units[i].rate;
    out.cost += n * p.units[i].cost;
    for (size_t s = 0; s < p.stock.size(); ++s) out.used[s] += counts[i] * p.units[i].gpus[s];
  }
  for (size_t m = 0; m < rate.size(); ++m) out.served = out.served && rate[m] >= p.demand[m];
  return out;
}

// Whole numbers, so that sums are exact.
FleetProblem random_problem(core::Random& random) {
  FleetProblem p;
  const auto whole = [&](int64_t least, int64_t most) {
    return least + static_cast<int64_t>(random.uniform() * static_cast<double>(most - least + 1));
  };
  const int64_t types = whole(1, 3), models = whole(1, 3);
  for (int64_t i = 0; i < types; ++i) p.stock.push_back(whole(0, 9));
  for (int64_t i = 0; i < models; ++i) p.demand.push_back(static_cast<double>(whole(1, 8)));
  const int64_t units = whole(models, 5);
  for (int64_t i = 0; i < units; ++i) {
    FleetUnit u;
    u.model = static_cast<size_t>(i < models ? i : whole(0, models - 1));
    u.rate = static_cast<double>(whole(1, 5));
    u.cost = static_cast<double>(whole(1, 9));
    u.gpus.assign(static_cast<size_t>(types), 0);
    u.gpus[static_cast<size_t>(whole(0, types - 1))] = whole(1, 4);
    if (random.uniform() < 0.2) u.gpus[static_cast<size_t>(whole(0, types - 1))] = whole(1, 3);  // P/D on two types
    p.units.push_back(std::move(u));
  }
  return p;
}

std::string fleet_refusal(const std::string& yaml) {
  try {
    parse_fleet(yaml, "f.yaml");
  } catch (const core::Error& error) {
    return error.what();
  }
  return "";
}

Resources& shared_resources() {
  static Resources resources;
  return resources;
}

}  // namespace

TEST_CASE("the solver agrees with a program worked out by hand") {
  // min 3a + 2b with 2a + b >= 5, b <= 2: (2, 1) costs 8; (3, 0) 9; (2, 2) 10.
  IntegerProgram p;
  p.columns = {{3, 10, true, {{0, 2}}}, {2, 2, true, {{0, 1}}}};
  p.rows = {{5, INFINITY}};
  const IntegerAnswer a = minimum(p);
  REQUIRE(a.feasible);
  CHECK(a.x == std::vector<double>{2, 1});
  CHECK(a.value == 8);
  CHECK(a.bound == 8);
  p.rows = {{30, INFINITY}};  // at most 22 is in reach
  CHECK(!minimum(p).feasible);
}

TEST_CASE("the cheapest choice costs what trying every choice finds, and holds what was asked") {
  core::Random random(7);
  const int cases = 300 / drydock::tests::kLighter;
  int feasible = 0;
  for (int i = 0; i < cases; ++i) {
    CAPTURE(i);
    const FleetProblem p = random_problem(random);
    double best = kNever;
    each_combination(p, [&](const std::vector<int64_t>& counts) {
      const Tally t = tally(p, counts);
      bool fits = t.served;
      for (size_t s = 0; s < p.stock.size(); ++s) fits = fits && t.used[s] <= p.stock[s];
      if (fits) best = std::min(best, t.cost);
    });
    const FleetChoice choice = cheapest(p);
    REQUIRE(choice.feasible == (best < kNever));
    if (!choice.feasible) continue;
    ++feasible;
    CHECK(choice.cost == best);
    CHECK(choice.bound == best);
    const Tally t = tally(p, choice.counts);
    CHECK(t.served);
    CHECK(t.cost == choice.cost);
    for (size_t s = 0; s < p.stock.size(); ++s) CHECK(t.used[s] <= p.stock[s]);
  }
  CHECK(feasible > cases / 4);
  CHECK(feasible < cases);
}

TEST_CASE("what a stock lacks is what trying every choice finds") {
  core::Random random(11);
  const int wanted = 25 / drydock::tests::kLighter + 1;
  for (int found = 0; found < wanted;) {
    const FleetProblem p = random_problem(random);
    if (cheapest(p).feasible) continue;
    ++found;
    int64_t fewest = std::numeric_limits<int64_t>::max();
    std::vector<int64_t> alone(p.stock.size(), fewest);
    double share = 0;
    each_combination(p, [&](const std::vector<int64_t>& counts) {
      const Tally t = tally(p, counts);
      std::vector<int64_t> over(p.stock.size());
      for (size_t s = 0; s < over.size(); ++s) over[s] = std::max<int64_t>(0, t.used[s] - p.stock[s]);
      const int64_t sum = std::accumulate(over.begin(), over.end(), int64_t{0});
      if (t.served) {
        fewest = std::min(fewest, sum);
        for (size_t s = 0; s < over.size(); ++s)
          if (over[s] == sum) alone[s] = std::min(alone[s], sum);
      }
      if (sum > 0) return;
      std::vector<double> rate(p.demand.size());
      for (size_t i = 0; i < counts.size(); ++i)
        rate[p.units[i].model] += static_cast<double>(counts[i]) * p.units[i].rate;
      double least = 1;
      for (size_t m = 0; m < rate.size(); ++m) least = std::min(least, rate[m] / p.demand[m]);
      share = std::max(share, least);
    });
    const FleetShortage s = shortage(p);
    REQUIRE(s.possible);
    CHECK(std::accumulate(s.more.begin(), s.more.end(), int64_t{0}) == fewest);
    for (size_t i = 0; i < alone.size(); ++i) {
      REQUIRE(s.more_of_one[i].has_value() == (alone[i] < std::numeric_limits<int64_t>::max()));
      if (s.more_of_one[i]) CHECK(*s.more_of_one[i] == alone[i]);
    }
    CHECK(s.share == doctest::Approx(share).epsilon(1e-6));  // CBC's tolerance
  }
}

TEST_CASE("what is wrong with a fleet is told by file, line and field") {
  const std::string stock = "stock: [{system: h100_sxm, gpus: 8}]\n";
  CHECK(fleet_refusal("models: []\n") == "f.yaml: line 1: field 'stock': missing");
  CHECK(fleet_refusal(stock + "models: []\n") == "f.yaml: line 2: field 'models': the list is empty");
  CHECK(fleet_refusal(stock + "models:\n  - {model: m, isl: 10, osl: 10}\n") ==
        "f.yaml: line 3: field 'models[0].rate': missing; a fleet is sized for requests/s");
  CHECK(
      fleet_refusal(
          stock + "models:\n  - {model: m, isl: 10, osl: 10, rate: 1}\n  - {model: a/m, isl: 1, osl: 1, rate: 1}\n") ==
      "f.yaml: line 4: name 'm' is there twice; want a name of its own for each");
  CHECK(fleet_refusal("stock: [{system: a, gpus: 8, prize: 2}]\n") ==
        "f.yaml: line 1: field 'stock[0].prize': not known here, did you mean 'price'?");
  CHECK(fleet_refusal(
            "stock: [{system: a, gpus: 8}, {system: a, gpus: 8}]\nmodels: [{model: m, isl: 1, osl: 1, rate: 1}]") ==
        "f.yaml: line 1: system 'a' is there twice");
  CHECK(fleet_refusal(stock + "headroom: 2\nmodels: [{model: m, isl: 1, osl: 1, rate: 1}]") ==
        "f.yaml: line 2: field 'headroom': want a number from 0 to 0.9, found '2'");
  const auto planned = [](const std::string& yaml) { plan_fleet(parse_fleet(yaml, "f.yaml"), shared_resources()); };
  const std::string one = "models: [{model: Qwen/Qwen3-8B, isl: 1, osl: 1, rate: 1}]\n";
  CHECK_THROWS_WITH_AS(planned("stock: [{system: h100_sxn, gpus: 1}]\n" + one), doctest::Contains("f.yaml: line 1: "),
                       core::Error);
  CHECK_THROWS_WITH_AS(planned("stock: [{system: a100_sxm, gpus: 1, price: 1}, {system: l4, gpus: 1}]\n" + one),
                       "f.yaml: line 1: system 'l4' has no price but others do; want price for all or for none",
                       core::Error);
  CHECK_THROWS_WITH_AS(planned(stock + "models: [{model: Qwen/Qwen3-8B, isl: 900000, osl: 1, rate: 1, backend: vllm}]"),
                       doctest::Contains("f.yaml: line 2: "), core::Error);
}

TEST_CASE("a fleet of one model on one type costs no more than sizing it alone, and its plans hold") {
  Resources own;
  const Fleet fleet = parse_fleet(
      "stock: [{system: h100_sxm, gpus: 16}]\nmode: agg\nmodels:\n"
      "  - {model: Qwen/Qwen3-32B, precision: fp8, backend: vllm, isl: 1500, osl: 200, rate: 9, ttft: 1s, tpot: "
      "40ms}\n",
      "f.yaml");
  const FleetAnswer a = plan_fleet(fleet, own);
  REQUIRE(a.feasible);
  Question q;
  q.model = "Qwen/Qwen3-32B";
  q.precision = "fp8";
  q.backend = models::Backend::vllm;
  q.system = "h100_sxm";
  q.mode = ModeChoice::agg;
  q.gpus = 16;
  q.goal = Goal::fewest_gpus;
  q.workload = fleet.models[0].workload;
  q.slo = fleet.models[0].slo;
  const Answer alone = recommend(q, own);
  REQUIRE(!alone.plans.empty());
  CHECK(a.cost <= alone.plans.front().plan.gpus());
  CHECK(a.cost == static_cast<double>(a.used[0]));  // without prices
  CHECK(!a.priced);
  double share = 0;
  for (const FleetDeployment& d : a.deployments) {
    share += d.share;
    CHECK(d.rate <= d.capacity * (1 + 1e-9));
    const auto again = predict(models::parse_plan(models::to_json(d.plan), "plan"), own);
    REQUIRE(again);
    CHECK(meets(*again, d.plan.slo));
  }
  CHECK(share == doctest::Approx(1));
}

TEST_CASE("stock is respected, prices decide, and too small a stock is told by how much") {
  Resources own;
  const std::string models =
      "mode: agg\nmodels:\n  - {name: a, model: Qwen/Qwen3-8B, precision: fp8, backend: vllm, isl: 1000, osl: 100, "
      "rate: RATE, "
      "ttft: 2s, tpot: 60ms}\n";
  const auto solve = [&](const std::string& stock, const std::string& rate) {
    std::string text = stock + models;
    text.replace(text.find("RATE"), 4, rate);
    return plan_fleet(parse_fleet(text, "f.yaml"), own);
  };
  // One l40s is cheap; the rest must go to the dear type.
  const FleetAnswer mixed =
      solve("stock: [{system: h100_sxm, gpus: 4, price: 9}, {system: l40s, gpus: 1, price: 0.5}]\n", "12");
  REQUIRE(mixed.feasible);
  CHECK(mixed.used[1] <= 1);
  CHECK(mixed.used[0] <= 4);
  CHECK(mixed.cost ==
        doctest::Approx(9.0 * static_cast<double>(mixed.used[0]) + 0.5 * static_cast<double>(mixed.used[1])));
  const FleetAnswer small = solve("stock: [{system: l40s, gpus: 1}]\n", "200");
  CHECK(!small.feasible);
  REQUIRE(small.shortage);
  CHECK(small.shortage->share > 0);
  CHECK(small.shortage->share < 0.5);
  CHECK(small.shortage->more[0] >= 1);
  // With what is said to lack, it is enough.
  const FleetAnswer enough =
      solve("stock: [{system: l40s, gpus: " + std::to_string(1 + small.shortage->more[0]) + "}]\n", "200");
  CHECK(enough.feasible);
  // 65 GB of weights do not fit a GPU of 45 GiB: what is lacking are GPUs, not a plan.
  const FleetAnswer one = plan_fleet(
      parse_fleet("stock: [{system: l40s, gpus: 1}]\nunit_gpus: 4\nmode: agg\nmodels: [{model: Qwen/Qwen3-32B, "
                  "precision: bf16, backend: vllm, isl: 100, osl: 10, rate: 0.5, tpot: 500ms}]\n",
                  "f.yaml"),
      own);
  CHECK(!one.feasible);
  CHECK(one.hopeless.empty());
  REQUIRE(one.shortage);
  CHECK(one.shortage->more == std::vector<int64_t>{1});
  const FleetAnswer never = plan_fleet(
      parse_fleet(
          "stock: [{system: l4, gpus: 2}]\nmode: agg\nmodels: [{model: Qwen/Qwen3-32B, backend: vllm, precision: "
          "fp8, isl: 100, osl: 10, rate: 1, tpot: 1ms}]\n",
          "f.yaml"),
      own);
  CHECK(!never.feasible);
  REQUIRE(never.hopeless.size() == 1);
  CHECK(never.hopeless[0].second.find("tpot is ") != std::string::npos);
}

TEST_CASE("a capacity that was too good to be true is lowered until the plans hold in simulation") {
  Resources own;
  const Fleet fleet = parse_fleet(
      "stock: [{system: h100_sxm, gpus: 8}]\nmode: agg\nmodels:\n"
      "  - {model: Qwen/Qwen3-8B, precision: fp8, backend: vllm, isl: 1000, osl: 100, rate: 60, ttft: 500ms, tpot: "
      "30ms}\n",
      "f.yaml");
  std::vector<std::pair<size_t, std::string>> none;
  std::vector<FleetCandidate> candidates = fleet_candidates(fleet, own, none);
  REQUIRE(none.empty());
  const FleetAnswer honest = choose_plans(fleet, candidates, own);
  REQUIRE(honest.feasible);
  for (FleetCandidate& c : candidates) c.rate *= 1.5;
  const FleetAnswer lowered = choose_plans(fleet, candidates, own);
  REQUIRE(lowered.feasible);
  CHECK(lowered.rounds > honest.rounds);
  CHECK(lowered.cost >= honest.cost);  // what each keeps up was known to 2 %, and one GPU here is more
  for (const FleetDeployment& d : lowered.deployments) {
    REQUIRE(d.plan.prediction);
    CHECK(meets(*d.plan.prediction, d.plan.slo));
  }
}
