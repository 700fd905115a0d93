#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/random.h"
#include "models/catalogue.h"
#include "profiler/design.h"
#include "profiler/simulated_device.h"
#include "tests/effort.h"

using namespace drydock;
using namespace drydock::profiler;

namespace {

constexpr double kNoise = 0.003;  // of a median

const models::System& design_h200() {
  static const models::System system = models::read_system(DRYDOCK_SOURCE_DIR "/models/data/systems/h200_sxm.json");
  return system;
}

// All ops that a GEMM of a dense model can be, in fp8.
Family gemms() {
  Family family;
  std::vector<int64_t> rows = extents(1, 8192);  // and between, as mixed steps have them
  for (const int64_t m : extents(16, 6144)) rows.push_back(m + m / 4), rows.push_back(m + 1);
  for (const int64_t m : rows)
    for (const int64_t n : extents(512, 32768))
      for (const int64_t k : extents(512, 32768))
        family.candidates.push_back(
            {core::make_op(core::OpKind::gemm, core::Dtype::fp8, core::Dtype::fp8, {m, n, k}), 1});
  family.key = family_of(family.candidates.front().op);
  std::sort(family.candidates.begin(), family.candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.op < b.op; });
  return family;
}

Family decodes() {
  Family family;
  for (const int64_t batch : extents(1, 256))
    for (const int64_t context : extents(64, 131072))
      for (const int64_t kv_heads : {1, 2, 4, 8})
        for (const int64_t group : {4, 8})
          family.candidates.push_back(
              {core::make_op(core::OpKind::decode_attention, core::Dtype::bf16, core::Dtype::bf16,
                             {batch, context, kv_heads * group, kv_heads, 128, 0}),
               1});
  family.key = family_of(family.candidates.front().op);
  std::sort(family.candidates.begin(), family.candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.op < b.op; });
  return family;
}

// Ops of the family's ranges that no grid holds: extents between the candidates'.
std::vector<core::Op> held_out(const Family& family, size_t count) {
  core::Random random(7);
  std::vector<core::Op> out;
  while (out.size() < count) {
    const auto pick = [&] {
      return family.candidates[static_cast<size_t>(random.integer(0, std::ssize(family.candidates) - 1))].op;
    };
    core::Op op = pick();
    const core::Op other = pick();
    for (const size_t d : {0, 1, 2}) {
      if (op.kind == core::OpKind::decode_attention && d == 2) continue;  // heads come as models have them
      op.shape[d] = std::llround(std::sqrt(static_cast<double>(op.shape[d]) * static_cast<double>(other.shape[d])));
    }
    out.push_back(op);
  }
  return out;
}

std::string text(const std::vector<int64_t>& points, const std::vector<double>& error,
                 const std::vector<double>& claimed) {
  std::string out;
  for (size_t i = 0; i < points.size(); i += 3)
    out += std::to_string(points[i]) + " points, error " + std::to_string(error[i]) + " (claimed " +
           std::to_string(claimed[i]) + "); ";
  return out;
}

double mean_error(const std::vector<core::Op>& ops, const std::function<double(const core::Op&)>& predict) {
  double sum = 0;
  for (const core::Op& op : ops) sum += std::abs(predict(op) / true_us(op, design_h200()) - 1);
  return sum / static_cast<double>(ops.size());
}

double measured_us(const core::Op& op, core::Random& random) {
  return true_us(op, design_h200()) * (1 + kNoise * random.normal());
}

struct Run {
  std::vector<int64_t> points;
  std::vector<double> error, claimed;  // after so many points: found on held-out ops, and what the design says
};

Run adaptive(const Family& family, const std::vector<core::Op>& test, int64_t most) {
  Design design({family}, design_h200().hardware, 0.0);
  core::Random random(3);
  Run run;
  const auto seconds = [](const core::Op&, double) { return 1.0; };
  while (design.families()[0].points() < most) {
    const auto next = design.next(4, seconds);
    REQUIRE(next);
    for (const core::Op& op : next->ops) design.families()[0].add(op, measured_us(op, random));
    design.refit(0);
    run.points.push_back(design.families()[0].points());
    run.error.push_back(mean_error(test, [&](const core::Op& op) { return design.families()[0].predict_us(op); }));
    run.claimed.push_back(design.families()[0].error());
  }
  return run;
}

// What collectors of tables do: every combination of `levels` extents an axis, evenly spaced in logarithm, and
// multilinear interpolation of log time between them.
class Grid {
 public:
  // `dims`: which extents vary, from low to high; `make` builds an op from their values.
  using Make = std::function<core::Op(const std::vector<double>&)>;
  Grid(std::vector<std::pair<double, double>> ranges, std::vector<int> levels, const Make& make)
      : ranges_(std::move(ranges)), levels_(std::move(levels)) {
    core::Random random(5);
    std::vector<int> at(levels_.size(), 0);
    for (bool more = true; more;) {
      std::vector<double> values;
      for (size_t d = 0; d < at.size(); ++d) values.push_back(value(d, at[d]));
      logs_.push_back(std::log(measured_us(make(values), random)));
      more = false;
      for (size_t d = at.size(); d-- > 0 && !more;)
        if (++at[d] < levels_[d])
          more = true;
        else
          at[d] = 0;
    }
  }

  int64_t points() const { return std::ssize(logs_); }

  double predict_us(const std::vector<double>& values) const {
    double sum = 0;
    for (size_t corner = 0; corner < size_t{1} << levels_.size(); ++corner) {
      double weight = 1;
      size_t index = 0;
      for (size_t d = 0; d < levels_.size(); ++d) {
        const auto [low, high] = ranges_[d];
        const double x = levels_[d] < 2 ? 0 : std::log(values[d] / low) / std::log(high / low) * (levels_[d] - 1);
        const int cell = std::clamp(static_cast<int>(x), 0, std::max(0, levels_[d] - 2));
        const bool upper = corner >> d & 1;
        weight *= upper ? x - cell : 1 - (x - cell);
        index = index * static_cast<size_t>(levels_[d]) + static_cast<size_t>(std::min(cell + upper, levels_[d] - 1));
      }
      sum += weight * logs_[index];
    }
    return std::exp(sum);
  }

 private:
  double value(size_t d, int level) const {
    const auto [low, high] = ranges_[d];
    return levels_[d] < 2 ? low : low * std::pow(high / low, static_cast<double>(level) / (levels_[d] - 1));
  }
  std::vector<std::pair<double, double>> ranges_;
  std::vector<int> levels_;
  std::vector<double> logs_;
};

core::Op gemm(const std::vector<double>& v) {
  return core::make_op(core::OpKind::gemm, core::Dtype::fp8, core::Dtype::fp8,
                       {std::llround(v[0]), std::llround(v[1]), std::llround(v[2])});
}

core::Op decode(const std::vector<double>& v) {
  const int64_t kv_heads = std::llround(v[2]);
  return core::make_op(core::OpKind::decode_attention, core::Dtype::bf16, core::Dtype::bf16,
                       {std::llround(v[0]), std::llround(v[1]), kv_heads * std::llround(v[3]), kv_heads, 128, 0});
}

}  // namespace

TEST_CASE("adaptive points need a tenth of a grid's for the same error: GEMM") {
  const Family family = gemms();
  const auto test = held_out(family, 400 / tests::kLighter);
  const Run run = adaptive(family, test, 72 / tests::kLighter + 24);
  MESSAGE("adaptive: ", text(run.points, run.error, run.claimed));
  const auto grid_error = [&](int levels) {
    const Grid grid({{1, 8192}, {512, 32768}, {512, 32768}}, {levels, levels, levels}, gemm);
    const double error = mean_error(test, [&](const core::Op& op) {
      return grid.predict_us(
          {static_cast<double>(op.shape[0]), static_cast<double>(op.shape[1]), static_cast<double>(op.shape[2])});
    });
    MESSAGE("grid: ", grid.points(), " points, error ", error);
    return error;
  };
  for (const int levels : {4, 6, 8}) grid_error(levels);
  if (tests::kLighter > 1) return;
  // 1000 points on the grid; at most 100 here.
  CHECK(run.error.back() < grid_error(10));
  // The design knows how far it is off, give or take a half: it sees its own ops only, no sizes between.
  CHECK(run.claimed.back() > run.error.back() / 1.6);
  CHECK(run.claimed.back() < run.error.back() * 2);
}

TEST_CASE("adaptive points need a tenth of a grid's for the same error: decode attention") {
  const Family family = decodes();
  const auto test = held_out(family, 400 / tests::kLighter);
  const Run run = adaptive(family, test, 56 / tests::kLighter + 24);
  MESSAGE("adaptive: ", text(run.points, run.error, run.claimed));
  const auto grid_error = [&](int levels) {
    const Grid grid({{1, 256}, {64, 131072}, {1, 8}, {4, 8}}, {levels, levels, 4, 2}, decode);
    const double error = mean_error(test, [&](const core::Op& op) {
      return grid.predict_us({static_cast<double>(op.shape[0]), static_cast<double>(op.shape[1]),
                              static_cast<double>(op.shape[3]), static_cast<double>(op.shape[2] / op.shape[3])});
    });
    MESSAGE("grid: ", grid.points(), " points, error ", error);
    return error;
  };
  for (const int levels : {4, 6, 8}) grid_error(levels);
  if (tests::kLighter > 1) return;
  CHECK(run.error.back() < grid_error(10));  // 800 points
  CHECK(run.claimed.back() > run.error.back() / 2);
}

TEST_CASE("a Gaussian process interpolates, and left-out errors are those of refits") {
  Eigen::MatrixXd x(6, 1);
  Eigen::VectorXd y(6);
  for (Eigen::Index i = 0; i < 6; ++i) {
    x(i, 0) = static_cast<double>(i);
    y[i] = std::sin(x(i, 0));
  }
  Covariance covariance = usual_covariance(1);
  covariance.noise = 1e-6;
  const GaussianProcess process(x, y, covariance);
  const Eigen::VectorXd back = process.mean(x);
  for (Eigen::Index i = 0; i < 6; ++i) CHECK(std::abs(back[i] - y[i]) < 1e-3);
  CHECK(process.variance(x).maxCoeff() < 2e-6);  // no more than the noise, and what rounding adds
  const GaussianProcess::LeftOut left = process.leave_one_out();
  for (Eigen::Index out = 0; out < 6; ++out) {
    std::vector<Eigen::Index> rest;
    for (Eigen::Index i = 0; i < 6; ++i)
      if (i != out) rest.push_back(i);
    const GaussianProcess refit(x(rest, Eigen::all), y(rest), covariance);
    const Eigen::MatrixXd at = x.row(out);
    CHECK(left.error[out] == doctest::Approx(y[out] - refit.mean(at)[0]).epsilon(1e-4));
    CHECK(left.deviation[out] == doctest::Approx(std::sqrt(refit.variance(at)[0] + covariance.noise)).epsilon(1e-4));
  }
}

TEST_CASE("families that are done are left alone, and all get their first points") {
  std::vector<Family> families{gemms(), decodes()};
  for (Candidate& c : families[0].candidates) c.weight = 0.9 / static_cast<double>(families[0].candidates.size());
  for (Candidate& c : families[1].candidates) c.weight = 0.1 / static_cast<double>(families[1].candidates.size());
  Design design(families, design_h200().hardware, 0.5);
  core::Random random(3);
  const auto seconds = [](const core::Op&, double) { return 1.0; };
  std::vector<size_t> order;
  while (const auto next = design.next(4, seconds)) {
    order.push_back(next->family);
    for (const core::Op& op : next->ops) design.families()[next->family].add(op, measured_us(op, random));
    design.refit(next->family);
  }
  // The first points of each, the heavier first; a few more check what they say, and a target of 50 % is met.
  REQUIRE(order.size() >= 4);
  CHECK(order[0] == 0);
  CHECK(order[1] == 1);
  for (const FamilyDesign& f : design.families()) CHECK(f.points() == f.fewest_points() + 8);
  CHECK(design.error() < 0.5);
  design.families()[0].exclude_all();
  CHECK(design.families()[0].is_exhausted());
}
