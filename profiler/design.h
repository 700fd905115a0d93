#pragma once
// What to measure next: a model with uncertainty of each family of ops, and where another point helps most.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/hardware.h"
#include "profiler/gaussian_process.h"
#include "profiler/work_list.h"

namespace drydock::profiler {

// The model of one family: log(time / perfdb::baseline_us) over its axes, a Gaussian process.
class FamilyDesign {
 public:
  FamilyDesign(Family family, const core::Hardware& hardware);

  const Family& family() const { return family_; }
  double weight() const { return weight_; }
  int64_t points() const { return static_cast<int64_t>(y_.size()); }
  int64_t open() const;  // candidates neither measured nor excluded

  // An op of the family's and its time [us]; it need not be a candidate. The model is as before until refit(), and what
  // it said of the op before is held against it.
  void add(const core::Op& op, double us);
  // Open candidates of at least `weight` each, the heaviest first.
  std::vector<Candidate> open_above(double weight) const;
  void exclude(const core::Op& op);  // fails, or is too slow
  void exclude_all();                // that are open
  // `start`: covariance to search from; what families of the same kind have found.
  void refit(const Covariance& start);
  const Covariance& covariance() const { return covariance_; }

  // Expected |predicted / true - 1| over the candidates, by weight: the model's own deviation, scaled by how far it has
  // been right about points left out. 1 with fewer points than the model needs.
  double error() const { return error_; }
  // Root mean square of the relative errors of each point predicted from the others; 0 with fewer than three.
  double left_out_error() const { return left_out_error_; }
  // More points would not tell more: all are measured, or what is left is noise to the model.
  bool is_exhausted() const;

  double predict_us(const core::Op& op) const;
  // Standard deviation that log(time) of each op is expected to be off by; of one that was measured, as if it had not
  // been: plans ask for what lies between the points. Needs one point.
  std::vector<double> deviations(const std::vector<core::Op>& ops) const;
  // What was measured, and of the other candidates a fair sample; `most` in all, or what was measured if that is more.
  std::vector<core::Op> spread_candidates(size_t most) const;

  struct Choice {
    std::vector<core::Op> ops;
    double gain_per_s = 0;  // of the first: fall of the family's weighted error variance per second of measuring
  };
  // The next `count` ops at most, best first; `seconds(op, us)`: what measuring one with that predicted time takes.
  Choice choose(int count, const std::function<double(const core::Op&, double)>& seconds) const;

  int64_t fewest_points() const;  // that the model needs
  bool is_checked() const;        // against points that it had not seen before

 private:
  enum class State : uint8_t { open, measured, excluded };
  Eigen::MatrixXd rows(const std::vector<size_t>& candidates) const;
  double log_baseline(const core::Op& op) const;
  std::vector<size_t> thinned(bool open_only, size_t most) const;
  void mark(const core::Op& op, State state);
  void assess();
  double trust(const GaussianProcess::LeftOut& left) const;

  Family family_;
  core::Hardware hardware_;
  double weight_ = 0;
  int64_t varying_ = 0;        // axes along which the candidates differ
  Eigen::MatrixXd at_;         // (candidates, axes)
  std::vector<State> state_;   // of the candidates
  std::vector<core::Op> ops_;  // measured
  std::vector<double> y_;
  std::vector<double> surprises_;  // (measured - predicted) / deviation of points when they were new
  Covariance covariance_;
  std::unique_ptr<GaussianProcess> model_;
  std::map<core::Op, double> left_deviation_;  // that the model claims of each op measured, had it not been
  double error_ = 1, left_out_error_ = 0;
  double trust_ = 1;     // factor of the model's deviations
  double resolved_ = 1;  // variance that points could take, over that which they can't
};

// All families of a campaign.
class Design {
 public:
  Design(std::vector<Family> families, const core::Hardware& hardware, double target_error);

  std::vector<FamilyDesign>& families() { return families_; }
  const std::vector<FamilyDesign>& families() const { return families_; }

  struct Next {
    size_t family = 0;
    std::vector<core::Op> ops;
  };
  // nullopt: every family has met the target or is exhausted, and heavy ops are measured. Families that still lack the
  // fewest points come first, by weight; then those where a second buys most; then what alone takes a good share of the
  // time (kHeavy), as being right on average over a family is not being right about the op that a step consists of.
  std::optional<Next> next(int count, const std::function<double(const core::Op&, double)>& seconds);

  void refit(size_t family);                      // to be called after each change of a family
  size_t family_index(const core::Op& op) const;  // families().size() when there is none
  static constexpr double kHeavy = 0.005;         // of the time of all steps considered: 200 ops at most
  bool is_done(const FamilyDesign& family) const { return family.error() <= target_error_ || family.is_exhausted(); }
  double error() const;  // over all families, by weight

 private:
  std::optional<Next> heavy_ones(int count) const;

  std::vector<FamilyDesign> families_;
  std::map<FamilyKey, size_t> index_;
  double target_error_;
  std::map<core::OpKind, Covariance> shared_;                 // latest of each kind
  std::vector<std::optional<FamilyDesign::Choice>> choices_;  // of each family, until it changes
};

}  // namespace drydock::profiler
