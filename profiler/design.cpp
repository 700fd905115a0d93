#include "profiler/design.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/random.h"
#include "perfdb/features.h"

namespace drydock::profiler {
namespace {

constexpr size_t kReference = 240;   // candidates that stand for all in the choice
constexpr size_t kMostFitted = 120;  // points that the covariance is fitted to
constexpr double kFullError = 1;
const double kMeanOfNormal = std::sqrt(2 / std::numbers::pi);  // E|x| of a standard normal x

Eigen::MatrixXd matrix_of(const std::vector<core::Op>& ops) {
  Eigen::MatrixXd out;
  for (size_t i = 0; i < ops.size(); ++i) {
    const std::vector<double> a = axes(ops[i]);
    if (i == 0) out.resize(static_cast<Eigen::Index>(ops.size()), static_cast<Eigen::Index>(a.size()));
    out.row(static_cast<Eigen::Index>(i)) =
        Eigen::Map<const Eigen::RowVectorXd>(a.data(), static_cast<Eigen::Index>(a.size()));
  }
  return out;
}

Eigen::VectorXd vector_of(const std::vector<double>& values) {
  return Eigen::Map<const Eigen::VectorXd>(values.data(), static_cast<Eigen::Index>(values.size()));
}

}  // namespace

FamilyDesign::FamilyDesign(Family family, const core::Hardware& hardware)
    : family_(std::move(family)), hardware_(hardware), weight_(family_.weight()) {
  std::vector<core::Op> ops;
  for (const Candidate& candidate : family_.candidates) ops.push_back(candidate.op);
  at_ = matrix_of(ops);
  state_.assign(ops.size(), State::open);
  covariance_ = usual_covariance(at_.cols());
  for (Eigen::Index d = 0; d < at_.cols(); ++d) varying_ += at_.col(d).maxCoeff() > at_.col(d).minCoeff();
}

int64_t FamilyDesign::open() const { return std::count(state_.begin(), state_.end(), State::open); }

int64_t FamilyDesign::fewest_points() const { return std::min<int64_t>(4 + 3 * varying_, std::ssize(state_)); }

bool FamilyDesign::is_checked() const {
  constexpr int64_t kChecks = 6;
  // Those of an earlier campaign count: they were new to it.
  return points() >= fewest_points() + kChecks || open() == 0;
}

double FamilyDesign::log_baseline(const core::Op& op) const { return std::log(perfdb::baseline_us(op, hardware_)); }

void FamilyDesign::mark(const core::Op& op, State state) {
  const auto it = std::lower_bound(family_.candidates.begin(), family_.candidates.end(), op,
                                   [](const Candidate& c, const core::Op& wanted) { return c.op < wanted; });
  if (it != family_.candidates.end() && it->op == op)
    state_[static_cast<size_t>(it - family_.candidates.begin())] = state;
}

void FamilyDesign::add(const core::Op& op, double us) {
  const double y = std::log(us) - log_baseline(op);
  if (model_ && points() >= fewest_points()) {
    const Eigen::MatrixXd at = matrix_of({op});
    surprises_.push_back((y - model_->mean(at)[0]) / std::sqrt(model_->variance(at)[0] + covariance_.noise));
  }
  mark(op, State::measured);
  ops_.push_back(op);
  y_.push_back(y);
}

std::vector<Candidate> FamilyDesign::open_above(double weight) const {
  std::vector<Candidate> out;
  for (size_t i = 0; i < state_.size(); ++i)
    if (state_[i] == State::open && family_.candidates[i].weight >= weight) out.push_back(family_.candidates[i]);
  std::stable_sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) { return a.weight > b.weight; });
  return out;
}

void FamilyDesign::exclude(const core::Op& op) { mark(op, State::excluded); }

void FamilyDesign::exclude_all() { std::replace(state_.begin(), state_.end(), State::open, State::excluded); }

void FamilyDesign::refit(const Covariance& start) {
  if (y_.empty()) return;
  std::vector<size_t> chosen(y_.size());
  for (size_t i = 0; i < chosen.size(); ++i) chosen[i] = i;
  core::Random random(1);
  for (size_t i = chosen.size(); i-- > 1;)
    std::swap(chosen[i], chosen[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i)))]);
  chosen.resize(std::min(chosen.size(), kMostFitted));
  const Eigen::MatrixXd x = matrix_of(ops_);
  const Eigen::VectorXd y = vector_of(y_);
  covariance_ = start;
  if (points() >= fewest_points()) covariance_ = fit_covariance(x(chosen, Eigen::all), y(chosen), start);
  model_ = std::make_unique<GaussianProcess>(x, y, covariance_);
  assess();
}

// Evenly over a fixed shuffle, so that no axis is favoured.
std::vector<size_t> FamilyDesign::thinned(bool open_only, size_t most) const {
  std::vector<size_t> out;
  for (size_t i = 0; i < state_.size(); ++i)
    if (!open_only || state_[i] == State::open) out.push_back(i);
  if (out.size() <= most) return out;
  core::Random random(2);
  for (size_t i = 0; i < most; ++i)
    std::swap(out[i],
              out[static_cast<size_t>(random.integer(static_cast<int64_t>(i), static_cast<int64_t>(out.size()) - 1))]);
  out.resize(most);
  return out;
}

Eigen::MatrixXd FamilyDesign::rows(const std::vector<size_t>& candidates) const { return at_(candidates, Eigen::all); }

// How far the model's deviations are to be scaled.
double FamilyDesign::trust(const GaussianProcess::LeftOut& left) const {
  // Four pseudo-points say that the model is right, so that few real ones do not say too much.
  constexpr double kPrior = 4;
  const double left_out = ((left.error.array() / left.deviation.array()).square().sum() + kPrior) /
                          (static_cast<double>(points()) + kPrior);
  // Left-out errors are optimistic where points are few and clustered; how it did on new ones is not. Old ones say
  // little of the model that there is now.
  constexpr int64_t kRecent = 12;
  const int64_t told = std::min<int64_t>(std::ssize(surprises_), kRecent);
  double recent = kPrior;
  for (int64_t i = 0; i < told; ++i) recent += std::pow(surprises_[surprises_.size() - 1 - static_cast<size_t>(i)], 2);
  return std::sqrt(std::max(left_out, recent / (static_cast<double>(told) + kPrior)));
}

void FamilyDesign::assess() {
  const GaussianProcess::LeftOut left = model_->leave_one_out();
  trust_ = trust(left);
  left_out_error_ = points() < 3 ? 0 : std::sqrt(left.error.squaredNorm() / static_cast<double>(points()));
  left_deviation_.clear();
  for (size_t i = 0; i < ops_.size(); ++i) left_deviation_[ops_[i]] = left.deviation[static_cast<Eigen::Index>(i)];
  const std::vector<size_t> reference = thinned(false, 4 * kReference);
  std::vector<core::Op> ops;
  for (const size_t i : reference) ops.push_back(family_.candidates[i].op);
  const std::vector<double> deviation = deviations(ops);
  const Eigen::VectorXd variance = model_->variance(rows(reference));
  double weight = 0, off = 0, open_variance = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double w = family_.candidates[reference[i]].weight;
    weight += w;
    off += w * deviation[i];
    open_variance += w * variance[static_cast<Eigen::Index>(i)];
  }
  const bool is_known = points() >= fewest_points() && is_checked();
  error_ = is_known ? std::min(kFullError, kMeanOfNormal * off / weight) : kFullError;
  resolved_ = open_variance / weight / covariance_.noise;
}

bool FamilyDesign::is_exhausted() const {
  constexpr double kLittle = 0.1;  // of the variance that no point can take away
  return open() == 0 || (points() >= 2 * fewest_points() && resolved_ < kLittle);
}

double FamilyDesign::predict_us(const core::Op& op) const {
  const double log_ratio = model_ ? model_->mean(matrix_of({op}))[0] : 0;
  return std::exp(log_baseline(op) + log_ratio);
}

std::vector<double> FamilyDesign::deviations(const std::vector<core::Op>& ops) const {
  const Eigen::VectorXd spread = (model_->variance(matrix_of(ops)).array() + covariance_.noise).sqrt();
  std::vector<double> out;
  for (size_t i = 0; i < ops.size(); ++i) {
    const auto left = left_deviation_.find(ops[i]);
    out.push_back(trust_ * (left != left_deviation_.end() ? left->second : spread[static_cast<Eigen::Index>(i)]));
  }
  return out;
}

std::vector<core::Op> FamilyDesign::spread_candidates(size_t most) const {
  std::vector<core::Op> out = ops_;
  for (const size_t i : thinned(false, most > out.size() ? most - out.size() : 0))
    if (state_[i] != State::measured) out.push_back(family_.candidates[i].op);
  return out;
}

// Active learning as Cohn has it (J. Artificial Intelligence Research 4, 1996): the point that takes most of the
// variance over all candidates, by weight. Variances do not depend on values, so several can be chosen at once.
FamilyDesign::Choice FamilyDesign::choose(int count,
                                          const std::function<double(const core::Op&, double)>& seconds) const {
  Choice out;
  const std::vector<size_t> options = thinned(true, kReference), reference = thinned(false, kReference);
  if (options.empty()) return out;
  std::vector<size_t> both = options;
  both.insert(both.end(), reference.begin(), reference.end());
  const auto first = static_cast<Eigen::Index>(options.size()), rest = static_cast<Eigen::Index>(reference.size());
  const Eigen::MatrixXd x = rows(both);
  Eigen::MatrixXd spread = model_ ? model_->posterior(x) : covariance_(x, x);
  Eigen::VectorXd weight(rest), cost(first);
  for (Eigen::Index i = 0; i < rest; ++i) weight[i] = family_.candidates[reference[static_cast<size_t>(i)]].weight;
  weight *= weight_ / weight.sum();
  const Eigen::VectorXd mean = model_ ? model_->mean(x.topRows(first)) : Eigen::VectorXd::Zero(first);
  for (Eigen::Index i = 0; i < first; ++i) {
    const core::Op& op = family_.candidates[options[static_cast<size_t>(i)]].op;
    cost[i] = seconds(op, std::exp(log_baseline(op) + mean[i]));
  }
  std::vector<bool> taken(options.size());
  while (std::ssize(out.ops) < std::min<int64_t>(count, first)) {
    const Eigen::ArrayXd gain = (spread.topRightCorner(first, rest).array().square().matrix() * weight).array() /
                                (spread.diagonal().head(first).array() + covariance_.noise) / cost.array();
    Eigen::Index best = -1;
    for (Eigen::Index i = 0; i < first; ++i)
      if (!taken[static_cast<size_t>(i)] && (best < 0 || gain[i] > gain[best])) best = i;
    if (out.ops.empty()) out.gain_per_s = gain[best];
    taken[static_cast<size_t>(best)] = true;
    out.ops.push_back(family_.candidates[options[static_cast<size_t>(best)]].op);
    const Eigen::VectorXd column = spread.col(best);
    spread -= column * column.transpose() / (column[best] + covariance_.noise);
  }
  return out;
}

Design::Design(std::vector<Family> families, const core::Hardware& hardware, double target_error)
    : target_error_(target_error) {
  for (Family& family : families) {
    index_[family.key] = families_.size();
    families_.emplace_back(std::move(family), hardware);
  }
  choices_.resize(families_.size());
}

size_t Design::family_index(const core::Op& op) const {
  const auto it = index_.find(family_of(op));
  return it == index_.end() ? families_.size() : it->second;
}

void Design::refit(size_t family) {
  FamilyDesign& f = families_[family];
  choices_[family].reset();
  const core::OpKind kind = f.family().key.kind;
  const auto found = shared_.find(kind);
  const auto axes_count = f.covariance().length.size();
  f.refit(found != shared_.end() ? found->second : usual_covariance(axes_count));
  if (f.points() >= 2 * f.fewest_points()) shared_[kind] = f.covariance();
}

std::optional<Design::Next> Design::next(int count, const std::function<double(const core::Op&, double)>& seconds) {
  size_t best = families_.size();
  double most = -1;
  for (size_t i = 0; i < families_.size(); ++i) {  // the first points of all, the heaviest family first
    const FamilyDesign& f = families_[i];
    if (f.points() >= f.fewest_points() || f.open() == 0 || f.weight() <= most) continue;
    most = f.weight();
    best = i;
  }
  if (best < families_.size()) {
    const FamilyDesign& f = families_[best];
    return Next{best, f.choose(static_cast<int>(f.fewest_points() - f.points()), seconds).ops};
  }
  Next out;
  for (size_t i = 0; i < families_.size(); ++i) {
    if (is_done(families_[i])) continue;
    if (!choices_[i]) choices_[i] = families_[i].choose(count, seconds);
    const FamilyDesign::Choice& choice = *choices_[i];
    if (choice.ops.empty() || choice.gain_per_s <= most) continue;
    most = choice.gain_per_s;
    out = {i, choice.ops};
  }
  return out.ops.empty() ? heavy_ones(count) : std::optional(std::move(out));
}

std::optional<Design::Next> Design::heavy_ones(int count) const {
  Next out;
  double most = 0;
  for (size_t i = 0; i < families_.size(); ++i) {
    const std::vector<Candidate> heavy = families_[i].open_above(kHeavy);
    if (heavy.empty() || heavy.front().weight <= most) continue;
    most = heavy.front().weight;
    out = {i, {}};
    for (const Candidate& c : heavy)
      if (std::ssize(out.ops) < count) out.ops.push_back(c.op);
  }
  return out.ops.empty() ? std::nullopt : std::optional(std::move(out));
}

double Design::error() const {
  double sum = 0, weight = 0;
  for (const FamilyDesign& f : families_) {
    sum += f.weight() * f.error();
    weight += f.weight();
  }
  return weight > 0 ? sum / weight : 0;
}

}  // namespace drydock::profiler
