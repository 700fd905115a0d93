#include "profiler/remeasure.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "core/error.h"

namespace drydock::profiler {
namespace {

class Remeasuring {
 public:
  Remeasuring(perfdb::Database& database, Worker& worker, const models::System& system, const CampaignOptions& options,
              const std::function<void(const Progress&)>& progress, const std::atomic<bool>* stop)
      : database_(database),
        worker_(worker),
        options_(options),
        progress_(progress),
        stop_(stop),
        origin_(origin_of(worker.identity(), system)) {}

  CampaignReport run(const std::vector<core::Op>& ops, int rounds) {
    report_.ending = Ending::all_measured;
    for (int round = 0; round < rounds && goes_on(); ++round)
      for (const core::Op& op : ops)
        if (!goes_on())
          break;
        else if (!dropped_.contains(op))
          measure(op);
    add_families(ops);
    report_.points = std::ssize(best_us_);
    report_.error = 0;
    report_.seconds = elapsed();
    return std::move(report_);
  }

 private:
  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  bool goes_on() {
    if (stop_ != nullptr && stop_->load()) report_.ending = Ending::interrupted;
    if (!report_.lost.empty()) report_.ending = Ending::device_lost;
    if (report_.ending == Ending::all_measured && elapsed() >= options_.budget_s)
      report_.ending = Ending::out_of_budget;
    return report_.ending == Ending::all_measured;
  }

  void measure(const core::Op& op) {
    const double left = options_.budget_s - elapsed();
    if (progress_) progress_({core::key(op), std::ssize(best_us_), 0, left});
    Worker::Outcome outcome;
    try {
      outcome = worker_.measure(op, std::min(options_.op_limit_s, std::max(1.0, left)));
    } catch (const core::Error& error) {
      report_.lost = error.what();
      report_.failed.push_back({core::key(op), "took the device along: " + report_.lost});
      return;
    }
    if (outcome.status == Worker::Status::stopped) return;
    if (outcome.status == Worker::Status::measured) return keep(op, outcome.measured);
    dropped_.insert(op);
    (outcome.status == Worker::Status::failed ? report_.failed : report_.refused)
        .push_back({core::key(op), outcome.reason});
  }

  void keep(const core::Op& op, const Measured& measured) {
    const Summary& s = measured.summary;
    report_.throttled += measured.throttled;
    report_.drifting += s.drifts;
    report_.bimodal += s.bimodal;
    const auto [best, is_new] = best_us_.try_emplace(op, s.median);
    if (!is_new && best->second <= s.median) return;
    best->second = s.median;
    perfdb::Origin origin = origin_;
    if (!measured.kernel.empty()) origin.kernel = measured.kernel;
    database_.write([&](const auto& add) { add({op, origin, s.median, s.spread, s.samples}); });
  }

  void add_families(const std::vector<core::Op>& ops) {
    std::map<FamilyKey, FamilyReport> families;
    double total = 0;
    for (const core::Op& op : ops) {
      FamilyReport& family = families[family_of(op)];
      const auto best = best_us_.find(op);
      family.name = name(family_of(op));
      family.candidates += 1;
      family.points += best != best_us_.end();
      family.weight += best != best_us_.end() ? best->second : 0;
      family.met = family.points == family.candidates;
      family.error = family.met ? 0 : 1;
      total += best != best_us_.end() ? best->second : 0;
    }
    for (auto& [key, family] : families) {
      if (total > 0) family.weight /= total;
      report_.families.push_back(std::move(family));
    }
    std::stable_sort(report_.families.begin(), report_.families.end(),
                     [](const FamilyReport& a, const FamilyReport& b) { return a.weight > b.weight; });
  }

  perfdb::Database& database_;
  Worker& worker_;
  const CampaignOptions& options_;
  const std::function<void(const Progress&)>& progress_;
  const std::atomic<bool>* stop_;
  perfdb::Origin origin_;
  std::map<core::Op, double> best_us_;
  std::set<core::Op> dropped_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  CampaignReport report_;
};

}  // namespace

CampaignReport remeasure(perfdb::Database& database, Worker& worker, const models::System& system,
                         const std::vector<core::Op>& ops, int rounds, const CampaignOptions& options,
                         const std::function<void(const Progress&)>& progress, const std::atomic<bool>* stop) {
  return Remeasuring(database, worker, system, options, progress, stop).run(ops, rounds);
}

std::vector<core::Op> measured_ops(const perfdb::Database& base, const std::string& system) {
  perfdb::Database::Filter filter;
  filter.system = system;
  filter.backend = kBackend;
  std::set<core::Op> out;
  base.read(filter, [&](const perfdb::Measurement& m) { out.insert(m.op); });
  return {out.begin(), out.end()};
}

}  // namespace drydock::profiler
