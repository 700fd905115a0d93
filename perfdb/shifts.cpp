#include "perfdb/shifts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "perfdb/significance.h"

namespace drydock::perfdb {
namespace {

// Largest false discovery rates; together what noise alone may fail, 1 % of the runs.
constexpr double kFamilyRate = 0.007, kRowRate = 0.001, kMachineRate = 0.002;

// What is believed of the noise before the table is seen, and how many degrees of freedom that is worth.
constexpr double kPriorFamilies = 0.0065, kPriorRows = 0.0065, kPriorFreedom = 16;
constexpr double kPriorDrift = 0.01;      // where there are too few families to see it
constexpr double kUnknownError = 0.01;    // of a row that came without spread or samples
constexpr size_t kLeastFamilies = 4;      // fewer can't tell a drift from a change of one of them
constexpr size_t kMostLeftOut = 100;      // in more families one does not move the noise of the rest
constexpr double kDriftOverFamilies = 2;  // variance of the whole machine over that between families
constexpr double kQnEfficiency = 0.75;    // of Qn and of the MAD: degrees of freedom per value
constexpr double kMadEfficiency = 0.37;
constexpr double kMedianOverMean = 1.57;  // variance of a median over that of a mean
constexpr double kRowFreedom = 6;         // single rows have heavier tails than anything normal

struct Family {
  size_t index = 0;
  double shift = 0;
  double own_variance = 0;  // of shift, from its rows alone
};

// Moments of a prior and of an estimate, weighted by their degrees of freedom (Smyth, Stat. Appl. Genet. Mol. 2004).
double moderated(double prior, double variance, double freedom) {
  return (kPriorFreedom * prior * prior + freedom * std::max(0.0, variance)) / (kPriorFreedom + freedom);
}

double error_of(const RowShift& row) { return row.standard_error > 0 ? row.standard_error : kUnknownError; }

std::vector<double> ratios_of(const FamilyRows& family, double drift) {
  std::vector<double> out;
  for (const RowShift& row : family.rows) out.push_back(row.log_ratio - drift);
  return out;
}

// Families of one machine, judged together.
class Machine {
 public:
  Machine(const std::vector<FamilyRows>& all, size_t machine) : all_(all) {
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i].machine == machine) families_.push_back({i, hodges_lehmann(ratios_of(all[i], 0)), 0});
    row_variance_ = row_variance();
    for (Family& f : families_) f.own_variance = own_variance(all[f.index]);
    everything_ = surroundings(families_.size());
  }

  const std::vector<Family>& families() const { return families_; }
  double row_variance_between() const { return row_variance_; }

  // What the other families say: how far the machine drifted, and how far families spread about that.
  struct Surroundings {
    double drift = 0, drift_variance = kPriorDrift * kPriorDrift, variance = kPriorFamilies * kPriorFamilies;
    double freedom = kPriorFreedom;
  };
  const Surroundings& everything() const { return everything_; }

  // Without the family at `left_out` of families(), if there are few; with drift taken as none, if it was contradicted.
  Surroundings around(size_t left_out, bool drifts) const {
    Surroundings out = families_.size() <= kMostLeftOut ? surroundings(left_out) : everything_;
    if (drifts) return out;
    out.drift = 0;
    out.drift_variance = kPriorDrift * kPriorDrift;
    return out;
  }

 private:
  // Between runs, beyond what the spreads explain; from how far rows lie from the shift of their family.
  double row_variance() const {
    std::vector<double> distances, errors;
    double freedom = 0;
    for (const Family& f : families_) {
      const auto rows = static_cast<double>(all_[f.index].rows.size());
      freedom += rows - 1;
      for (const RowShift& row : all_[f.index].rows) {
        if (rows < 2) continue;
        distances.push_back(std::abs(row.log_ratio - f.shift) * std::sqrt(rows / (rows - 1)));
        errors.push_back(error_of(row) * error_of(row));
      }
    }
    if (distances.empty()) return kPriorRows * kPriorRows;
    const double scale = 1.4826 * median(distances);  // of a normal distribution's median distance
    return moderated(kPriorRows, scale * scale - median(errors), kMadEfficiency * freedom);
  }

  double own_variance(const FamilyRows& family) const {
    double sum = 0;
    for (const RowShift& row : family.rows) sum += row_variance_ + error_of(row) * error_of(row);
    const auto rows = static_cast<double>(family.rows.size());
    return sum / (rows * rows);
  }

  Surroundings surroundings(size_t left_out) const {
    Surroundings out;
    if (families_.size() < kLeastFamilies) return out;
    std::vector<double> shifts, variances;
    for (size_t i = 0; i < families_.size(); ++i) {
      if (i == left_out) continue;
      shifts.push_back(families_[i].shift);
      variances.push_back(families_[i].own_variance);
    }
    const auto count = static_cast<double>(shifts.size());
    const double scale = scale_qn(shifts), own = median(variances), freedom = kQnEfficiency * (count - 1);
    out.drift = median(shifts);
    out.variance = moderated(kPriorFamilies, scale * scale - own, freedom);
    out.drift_variance = kMedianOverMean * (out.variance + own) / count;
    out.freedom += freedom;
    return out;
  }

  const std::vector<FamilyRows>& all_;
  std::vector<Family> families_;
  double row_variance_ = 0;
  Surroundings everything_;
};

struct P {
  double slower = 1, faster = 1;
};

P two_sided(double shift, double variance, double freedom) {
  const double p = student_t_p(std::abs(shift) / std::sqrt(variance), freedom);
  return shift > 0 ? P{p, 1 - p} : P{1 - p, p};
}

// Whether the rows agree with what `noise` lets through, where they are enough for their ranks to decide among so many
// families: the least p value of n ranks is 2^-n.
P with_ranks(P noise, const FamilyRows& family, double drift, size_t families) {
  const int rows = static_cast<int>(std::min<size_t>(family.rows.size(), 60));
  if (std::ldexp(1.0, -rows) > kFamilyRate / static_cast<double>(families)) return noise;
  std::vector<double> ratios = ratios_of(family, drift);
  if (noise.slower <= kFamilyRate) noise.slower = std::max(noise.slower, signed_rank_p(ratios));
  for (double& x : ratios) x = -x;
  if (noise.faster <= kFamilyRate) noise.faster = std::max(noise.faster, signed_rank_p(ratios));
  return noise;
}

// Verdicts on judgements whose p values are these, their false discovery rates controlled together.
void decide(const std::vector<Judgement*>& judged, const std::vector<P>& p, double rate, double least) {
  std::vector<double> slower, faster;
  for (const P& one : p) {
    slower.push_back(one.slower);
    faster.push_back(one.faster);
  }
  slower = false_discovery_rates(slower);
  faster = false_discovery_rates(faster);
  for (size_t i = 0; i < judged.size(); ++i) {
    Judgement& j = *judged[i];
    j.slower_rate = slower[i];
    j.faster_rate = faster[i];
    j.verdict = Verdict::unchanged;
    if (j.slower_rate <= rate && j.beyond_drift >= least) j.verdict = Verdict::slower;
    if (j.faster_rate <= rate && j.beyond_drift <= -least) j.verdict = Verdict::faster;
  }
}

class Judge {
 public:
  Judge(const std::vector<FamilyRows>& families, size_t machines, double threshold)
      : families_(families), least_(std::log1p(threshold)), drifts_(machines, true) {
    for (size_t i = 0; i < machines; ++i) machines_.emplace_back(families, i);
    out_.machines.resize(machines);
    out_.families.resize(families.size());
    out_.rows.resize(families.size());
  }

  ShiftJudgement run() {
    judge_machines();
    judge_families();
    if (contradicted()) judge_families();
    judge_rows();
    return std::move(out_);
  }

 private:
  void judge_machines() {
    std::vector<Judgement*> judged;
    std::vector<P> p;
    for (size_t i = 0; i < machines_.size(); ++i) {
      MachineJudgement& m = out_.machines[i];
      const auto around = machines_[i].everything();
      const double variance = kDriftOverFamilies * around.variance + around.drift_variance;
      m.between_families = std::sqrt(around.variance);
      m.between_rows = std::sqrt(machines_[i].row_variance_between());
      m.drift = m.all.log_ratio = m.all.beyond_drift = around.drift;
      m.all.noise = std::sqrt(variance);
      judged.push_back(&m.all);
      p.push_back(two_sided(around.drift, variance, around.freedom));
    }
    decide(judged, p, kMachineRate, least_);
  }

  void judge_families() {
    std::vector<Judgement*> judged;
    std::vector<P> p;
    for (size_t i = 0; i < machines_.size(); ++i)
      for (size_t at = 0; at < machines_[i].families().size(); ++at) {
        const Family& f = machines_[i].families()[at];
        const auto around = machines_[i].around(at, drifts_[i]);
        Judgement& j = out_.families[f.index];
        const double variance = around.variance + around.drift_variance + f.own_variance;
        j.log_ratio = f.shift;
        j.beyond_drift = f.shift - around.drift;
        j.noise = std::sqrt(variance);
        judged.push_back(&j);
        const P noise = two_sided(j.beyond_drift, variance, around.freedom);
        p.push_back(with_ranks(noise, families_[f.index], around.drift, families_.size()));
      }
    decide(judged, p, kFamilyRate, least_);
  }

  // A machine drifts with all its families. Where a large drift makes one stand out that by itself hardly moved, most
  // of the others changed instead, and nothing is taken out.
  bool contradicted() {
    bool any = false;
    for (size_t i = 0; i < machines_.size(); ++i) {
      const double drift = out_.machines[i].drift;
      if (std::abs(drift) < least_ * 2 / 3) continue;
      const Verdict against = drift > 0 ? Verdict::faster : Verdict::slower;
      for (const Family& f : machines_[i].families())
        if (out_.families[f.index].verdict == against && std::abs(f.shift) < least_) drifts_[i] = false;
      if (drifts_[i]) continue;
      out_.machines[i].drift = 0;
      any = true;
    }
    return any;
  }

  void judge_rows() {
    std::vector<Judgement*> judged;
    std::vector<P> p;
    for (size_t i = 0; i < families_.size(); ++i) {
      const size_t machine = families_[i].machine;
      const auto around = machines_[machine].around(machines_[machine].families().size(), drifts_[machine]);
      out_.rows[i].resize(families_[i].rows.size());
      for (size_t r = 0; r < families_[i].rows.size(); ++r) {
        const RowShift& row = families_[i].rows[r];
        Judgement& j = out_.rows[i][r];
        const double variance = around.variance + around.drift_variance + machines_[machine].row_variance_between() +
                                error_of(row) * error_of(row);
        j.log_ratio = row.log_ratio;
        j.beyond_drift = row.log_ratio - around.drift;
        j.noise = std::sqrt(variance);
        judged.push_back(&j);
        p.push_back(two_sided(j.beyond_drift, variance, kRowFreedom));
      }
    }
    decide(judged, p, kRowRate, least_);
  }

  const std::vector<FamilyRows>& families_;
  double least_;
  std::vector<bool> drifts_;
  std::vector<Machine> machines_;
  ShiftJudgement out_;
};

bool is_slower(const Judgement& j) { return j.verdict == Verdict::slower; }

}  // namespace

std::string_view name(Verdict verdict) {
  constexpr std::array<std::string_view, 3> kNames = {"unchanged", "slower", "faster"};
  return kNames[static_cast<size_t>(verdict)];
}

bool ShiftJudgement::slower() const {
  return std::any_of(machines.begin(), machines.end(), [](const MachineJudgement& m) { return is_slower(m.all); }) ||
         std::any_of(families.begin(), families.end(), is_slower) ||
         std::any_of(rows.begin(), rows.end(),
                     [](const auto& family) { return std::any_of(family.begin(), family.end(), is_slower); });
}

ShiftJudgement judge_shifts(const std::vector<FamilyRows>& families, size_t machines, double threshold) {
  return Judge(families, machines, threshold).run();
}

}  // namespace drydock::perfdb
