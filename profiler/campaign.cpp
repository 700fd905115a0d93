#include "profiler/campaign.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <set>

#include "core/error.h"
#include "profiler/design_surfaces.h"

namespace drydock::profiler {
namespace {

constexpr int kMostInARow = 5;       // failures or refusals of one family before it is given up
constexpr size_t kRefusalsTold = 2;  // of one family
constexpr double kFitShare = 0.04;   // of the budget, kept for the surfaces
constexpr double kMostFitSeconds = 8;
constexpr double kNamingShare = 0.03;  // of the budget, kept for the split of ops of several kernels
constexpr double kMostNamingSeconds = 10;
constexpr size_t kFamiliesSplit = 4;

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
  return text;
}

bool same_but_for_date_and_kernel(perfdb::Origin a, const perfdb::Origin& b) {
  a.date = b.date;
  a.kernel = b.kernel;
  return a == b;
}

class Campaign {
 public:
  Campaign(perfdb::Database& database, Worker& worker, const models::System& system, std::vector<Family> families,
           const CampaignOptions& options, const std::function<void(const Progress&)>& progress,
           const std::atomic<bool>* stop)
      : database_(database),
        worker_(worker),
        system_(system),
        options_(options),
        progress_(progress),
        stop_(stop),
        origin_(origin_of(worker.identity(), system)),
        design_(std::move(families), system.hardware, options.target_error),
        in_a_row_(design_.families().size(), 0),
        refusals_(design_.families().size(), 0),
        several_(design_.families().size()),
        energy_(design_.families().size()) {}

  CampaignReport run() {
    reuse();
    for (;;) {
      if (is_over()) break;
      const auto next = design_.next(options_.batch, [&](const core::Op& op, double us) { return seconds(op, us); });
      if (!next) {
        report_.ending = all_met() ? Ending::target_met : Ending::nothing_left;
        break;
      }
      for (const core::Op& op : next->ops)
        if (is_over() || !try_op(next->family, op)) break;
      design_.refit(next->family);
    }
    if (report_.ending == Ending::out_of_budget && all_met()) report_.ending = Ending::target_met;
    finish();
    name_parts();
    report_.seconds = elapsed();
    return std::move(report_);
  }

 private:
  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  double seconds_left() const {
    const double naming_s = are_several_ ? std::min(kMostNamingSeconds, kNamingShare * options_.budget_s) : 0;
    return options_.budget_s - std::min(kMostFitSeconds, kFitShare * options_.budget_s) - naming_s - elapsed();
  }
  // Costs are what the rule says, by how far it has been off.
  double seconds(const core::Op& op, double us) const {
    const double factor = (1 + spent_s_) / (1 + foreseen_s_);
    return factor * seconds_for(op, us, options_.rule);
  }

  void reuse() {
    perfdb::Database::Filter filter;
    filter.system = origin_.system;
    filter.backend = origin_.backend;
    std::vector<bool> changed(design_.families().size());
    database_.read(filter, [&](const perfdb::Measurement& m) {
      const size_t family = design_.family_index(m.op);
      if (family == changed.size() || !same_but_for_date_and_kernel(m.origin, origin_)) return;
      design_.families()[family].add(m.op, m.latency_us);
      note_kernel(family, m.op, m.latency_us, m.origin.kernel);
      changed[family] = true;
      ++report_.reused;
    });
    for (size_t i = 0; i < changed.size(); ++i)
      if (changed[i]) design_.refit(i);
  }

  bool is_over() {
    if (stop_ != nullptr && stop_->load())
      report_.ending = Ending::interrupted;
    else if (!report_.lost.empty())
      report_.ending = Ending::device_lost;
    else if (seconds_left() <= 0 || (options_.most_points > 0 && report_.points >= options_.most_points))
      report_.ending = Ending::out_of_budget;
    else
      return false;
    return true;
  }

  // False: the rest of the batch is no longer what is wanted.
  bool try_op(size_t family, const core::Op& op) {
    FamilyDesign& f = design_.families()[family];
    const double us = f.predict_us(op), cost = seconds(op, us);
    if (cost > seconds_left()) {  // a cheaper one may still fit
      f.exclude(op);
      return true;
    }
    if (progress_) progress_({core::key(op), report_.points, design_.error(), seconds_left()});
    const double begun = elapsed();
    // Predictions may be far off in the beginning; no op may eat the budget.
    const double limit = std::min(options_.op_limit_s + 5 * cost, std::max(1.0, seconds_left()));
    Worker::Outcome outcome;
    try {
      outcome = worker_.measure(op, limit);
    } catch (const core::Error& error) {  // what was measured is kept, and surfaces are fitted to it
      report_.lost = error.what();
      report_.failed.push_back({core::key(op), "took the device along: " + report_.lost});
      return false;
    }
    if (outcome.status == Worker::Status::stopped) return false;
    if (outcome.status == Worker::Status::measured) {
      spent_s_ += elapsed() - begun;
      foreseen_s_ += seconds_for(op, outcome.measured.summary.median, options_.rule);
      return keep(family, op, outcome.measured);
    }
    return drop(family, op, outcome);
  }

  bool keep(size_t family, const core::Op& op, const Measured& measured) {
    const Summary& s = measured.summary;
    perfdb::Origin origin = origin_;
    if (!measured.kernel.empty()) origin.kernel = measured.kernel;
    database_.write([&](const auto& add) { add({op, origin, s.median, s.spread, s.samples}); });
    note_kernel(family, op, s.median, origin.kernel);
    design_.families()[family].add(op, s.median);
    in_a_row_[family] = 0;
    ++report_.points;
    report_.throttled += measured.throttled;
    report_.drifting += s.drifts;
    report_.bimodal += s.bimodal;
    if (measured.joules) energy_[family].push_back({core::key(op), s.median, *measured.joules});
    return true;
  }

  bool drop(size_t family, const core::Op& op, const Worker::Outcome& outcome) {
    FamilyDesign& f = design_.families()[family];
    f.exclude(op);
    const FailedOp told{core::key(op), outcome.reason};
    if (outcome.status == Worker::Status::failed)
      report_.failed.push_back(told);
    else if (refusals_[family]++ < kRefusalsTold)
      report_.refused.push_back(told);
    if (++in_a_row_[family] < kMostInARow) return true;
    f.exclude_all();
    return false;
  }

  bool all_met() const {
    return std::all_of(design_.families().begin(), design_.families().end(),
                       [&](const FamilyDesign& f) { return f.error() <= options_.target_error; });
  }

  void finish() {
    const auto surfaces = surfaces_of(design_, system_.hardware, origin_.backend, origin_.version);
    database_.write(surfaces);
    report_.surfaces = std::ssize(surfaces);
    for (const FamilyDesign& f : design_.families())
      report_.families.push_back({name(f.family().key), f.weight(), std::ssize(f.family().candidates), f.points(),
                                  f.error(), f.left_out_error(), f.error() <= options_.target_error});
    std::stable_sort(report_.families.begin(), report_.families.end(),
                     [](const FamilyReport& a, const FamilyReport& b) { return a.weight > b.weight; });
    report_.error = design_.error();
    for (const size_t i : heaviest_first())
      report_.energy.insert(report_.energy.end(), energy_[i].begin(), energy_[i].end());
  }

  std::vector<size_t> heaviest_first() const {
    std::vector<size_t> out(design_.families().size());
    for (size_t i = 0; i < out.size(); ++i) out[i] = i;
    std::stable_sort(out.begin(), out.end(), [&](size_t a, size_t b) {
      return design_.families()[a].weight() > design_.families()[b].weight();
    });
    return out;
  }

  void note_kernel(size_t family, const core::Op& op, double us, const std::string& kernel) {
    if (kernel.find('+') == std::string::npos) return;
    several_[family].emplace_back(us, op);
    are_several_ = true;
  }

  // Of each of the heaviest families the shortest op, the one in the middle and the longest.
  std::vector<core::Op> ops_to_split() {
    std::vector<core::Op> out;
    size_t families = 0;
    for (const size_t i : heaviest_first()) {
      auto& ops = several_[i];
      if (ops.empty()) continue;
      if (families++ == kFamiliesSplit) break;
      std::sort(ops.begin(), ops.end());
      for (const size_t at : std::set<size_t>{0, ops.size() / 2, ops.size() - 1}) out.push_back(ops[at].second);
    }
    return out;
  }

  // No figure rests on it: what goes wrong is told and that is all.
  void name_parts() {
    const std::vector<core::Op> ops = ops_to_split();
    if (ops.empty() || report_.ending >= Ending::interrupted) return;
    const auto left = [&] { return options_.budget_s - elapsed(); };
    try {
      if (left() < 2 * worker_.opening_s()) throw core::Error("the budget is spent");
      worker_.restart();
      for (const core::Op& op : ops) {
        if (left() <= 0) throw core::Error("the budget is spent");
        Worker::Naming naming = worker_.parts(op, std::min(options_.op_limit_s, left()));
        if (naming.status != Worker::Status::measured) throw core::Error(naming.reason);
        if (!naming.parts.empty()) report_.parts.push_back({core::key(op), std::move(naming.parts)});
      }
    } catch (const core::Error& error) {
      report_.no_parts = error.what();
    }
  }

  perfdb::Database& database_;
  Worker& worker_;
  const models::System& system_;
  const CampaignOptions& options_;
  const std::function<void(const Progress&)>& progress_;
  const std::atomic<bool>* stop_;
  perfdb::Origin origin_;
  Design design_;
  std::vector<int> in_a_row_;
  std::vector<size_t> refusals_;
  std::vector<std::vector<std::pair<double, core::Op>>> several_;  // by family: time and op, of several kernels
  bool are_several_ = false;
  std::vector<std::vector<OpEnergy>> energy_;  // by family
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double spent_s_ = 0, foreseen_s_ = 0;
  CampaignReport report_;
};

}  // namespace

perfdb::Origin origin_of(const Identity& identity, const models::System& system) {
  perfdb::Origin out;
  out.system = system.name();
  out.backend = kBackend;
  out.version = identity.version;
  out.gpu = identity.gpu;
  out.driver = identity.driver;
  out.clocks = identity.clocks;
  out.kernel = kBackend;
  out.date = today();
  out.source = kSource;
  return out;
}

CampaignReport run_campaign(perfdb::Database& database, Worker& worker, const models::System& system,
                            std::vector<Family> families, const CampaignOptions& options,
                            const std::function<void(const Progress&)>& progress, const std::atomic<bool>* stop) {
  return Campaign(database, worker, system, std::move(families), options, progress, stop).run();
}

double seconds_for(const core::Op& op, double us, const StopRule& rule) {
  constexpr double kInputsBytesPerS = 1e9;  // made at random and copied
  constexpr double kSetup = 0.005, kWarmUps = 3, kTypicalSamples = 15;
  const double once = us * 1e-6;
  const double measuring = std::clamp(kTypicalSamples * once, std::max(rule.least_seconds, 0.02), rule.most_seconds);
  return kSetup + core::bytes(op) / kInputsBytesPerS + std::min(kWarmUps * once, 0.1 + once) +
         std::max(measuring, once);
}

Forecast forecast(const std::vector<Family>& families, const models::System& system, const CampaignOptions& options) {
  // Families like those of the tests need some 20 points an axis for 5 %; the median candidate is a fair guess.
  constexpr int64_t kPointsPerAxis = 16;
  Forecast out;
  for (const Family& family : families) {
    const auto points = std::min<int64_t>(kPointsPerAxis * std::ssize(axes(family.candidates.front().op)),
                                          std::ssize(family.candidates));
    std::vector<double> costs;
    for (const Candidate& c : family.candidates)
      costs.push_back(seconds_for(c.op, perfdb::baseline_us(c.op, system.hardware), options.rule));
    out.points += points;
    out.seconds += static_cast<double>(points) * quantile(costs, 0.4);
  }
  return out;
}

}  // namespace drydock::profiler
