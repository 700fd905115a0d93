#include "cli/profile_report.h"

#include <fmt/format.h>

#include <algorithm>

namespace drydock::cli {
namespace {

using profiler::CampaignReport;
using profiler::Ending;

const char* name(Ending ending) {
  switch (ending) {
    case Ending::target_met:
      return "target_met";
    case Ending::all_measured:
      return "all_measured";
    case Ending::nothing_left:
      return "nothing_left";
    case Ending::out_of_budget:
      return "out_of_budget";
    case Ending::device_lost:
      return "device_lost";
    default:
      return "interrupted";
  }
}

const char* sentence(Ending ending) {
  switch (ending) {
    case Ending::target_met:
      return "every family has met the target";
    case Ending::all_measured:
      return "all ops asked for are measured";
    case Ending::nothing_left:
      return "no further point would bring a family to the target";
    case Ending::out_of_budget:
      return "the budget is spent";
    case Ending::device_lost:
      return "the device was lost";
    default:
      return "interrupted";
  }
}

double watts(const profiler::OpEnergy& e) { return e.joules / e.us * 1e6; }

core::Json device_json(const ProfileWork& work) {
  const profiler::Identity& i = work.identity;
  return {{"system", work.system.name()},
          {"gpu", i.gpu},
          {"driver", i.driver},
          {"clocks", i.clocks},
          {"kernels", i.version},
          {"units", i.units},
          {"memory_bytes", i.memory_bytes},
          {"ecc", i.ecc},
          {"other_processes", i.other_processes},
          {"power_w", i.power_w},
          {"celsius", i.celsius},
          {"warnings", i.warnings}};
}

core::Json failures_json(const std::vector<profiler::FailedOp>& ops) {
  core::Json out = core::Json::array();
  for (const profiler::FailedOp& op : ops) out.push_back({{"op", op.op}, {"reason", op.reason}});
  return out;
}

core::Json energy_json(const CampaignReport& r) {
  core::Json out = core::Json::array();
  for (const profiler::OpEnergy& e : r.energy)
    out.push_back({{"op", e.op}, {"us", e.us}, {"joules", e.joules}, {"watts", watts(e)}});
  return out;
}

core::Json parts_json(const CampaignReport& r) {
  core::Json out = core::Json::array();
  for (const profiler::OpParts& split : r.parts) {
    core::Json parts = core::Json::array();
    for (const profiler::KernelPart& part : split.parts) parts.push_back({{"name", part.name}, {"share", part.share}});
    out.push_back({{"op", split.op}, {"parts", parts}});
  }
  return out;
}

core::Json report_json(const ProfileWork& work, const CampaignReport& r, const profiler::CampaignOptions& options,
                       const std::string& database) {
  core::Json families = core::Json::array();
  for (const profiler::FamilyReport& f : r.families)
    families.push_back({{"family", f.name},
                        {"share", f.weight},
                        {"ops", f.candidates},
                        {"points", f.points},
                        {"error", f.error},
                        {"left_out_error", f.left_out_error},
                        {"met", f.met}});
  core::Json out = {{"db", database},
                    {"device", device_json(work)},
                    {"ending", name(r.ending)},
                    {"target_error", options.target_error},
                    {"error", r.error},
                    {"points", r.points},
                    {"reused", r.reused},
                    {"surfaces", r.surfaces},
                    {"seconds", r.seconds},
                    {"throttled_samples", r.throttled},
                    {"drifting", r.drifting},
                    {"bimodal", r.bimodal},
                    {"families", families},
                    {"energy", energy_json(r)},
                    {"parts", parts_json(r)},
                    {"failed", failures_json(r.failed)},
                    {"refused", failures_json(r.refused)},
                    {"skipped", work.skipped}};
  if (!r.no_parts.empty()) out["no_parts"] = r.no_parts;
  return out;
}

void print_failures(const char* what, const std::vector<profiler::FailedOp>& ops) {
  constexpr size_t kMostShown = 8;
  for (size_t i = 0; i < std::min(ops.size(), kMostShown); ++i)
    fmt::print("{} {}: {}\n", what, ops[i].op, ops[i].reason);
  if (ops.size() > kMostShown) fmt::print("{} {} more; --json gives all\n", what, ops.size() - kMostShown);
}

// Of a launch of the ops that take most; --json gives all.
void print_energy(const CampaignReport& r) {
  constexpr size_t kMostShown = 6;
  std::vector<profiler::OpEnergy> most = r.energy;
  std::stable_sort(most.begin(), most.end(), [](const auto& a, const auto& b) { return a.joules > b.joules; });
  most.resize(std::min(most.size(), kMostShown));
  Table table({"energy of one launch", "time", "J", "W"}, "lrrr");
  for (const profiler::OpEnergy& e : most)
    table.row({e.op, fmt::format("{:.1f} us", e.us), fmt::format("{:.3g}", e.joules), fmt::format("{:.0f}", watts(e))});
  if (!most.empty()) fmt::print("{}", table.text());
}

void print_parts(const CampaignReport& r) {
  for (const profiler::OpParts& split : r.parts) {
    std::string text;
    for (const profiler::KernelPart& part : split.parts)
      text += fmt::format("{}{} {:.0f}%", text.empty() ? "" : ", ", part.name, 100 * part.share);
    fmt::print("{}: {}\n", split.op, text);
  }
  if (!r.no_parts.empty()) fmt::print("no further ops were split into their kernels: {}\n", r.no_parts);
}

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  return whole < 60 ? fmt::format("{:.1f} s", seconds) : fmt::format("{} min {:02d} s", whole / 60, whole % 60);
}

void print_machine(const ProfileWork& work) {
  const profiler::Identity& i = work.identity;
  fmt::print("{}: {}\n", work.system.name(), work.system.gpu);
  if (!i.gpu.empty()) fmt::print("  {}, {}, kernels {}\n", i.clocks, i.driver, i.version);
  for (const std::string& warning : i.warnings) fmt::print("  warning: {}\n", warning);
  if (!work.skipped.empty())
    fmt::print("  {} deployments can't be, such as {}\n", work.skipped.size(), work.skipped.front());
}

}  // namespace

std::string first_reason(const CampaignReport& report) {
  if (!report.lost.empty()) return report.lost;
  for (const auto* ops : {&report.failed, &report.refused})
    if (!ops->empty()) return ops->front().op + ": " + ops->front().reason;
  return "the budget is too short for a single op";
}

void print_dry_run(const ProfileWork& work, const std::vector<profiler::Family>& families,
                   const profiler::CampaignOptions& options, bool json) {
  const profiler::Forecast all = profiler::forecast(families, work.system, options);
  core::Json list = core::Json::array();
  Table table({"family", "share", "ops", "points", "time"}, "lrrrr");
  for (const profiler::Family& f : families) {
    const profiler::Forecast one = profiler::forecast({f}, work.system, options);
    list.push_back({{"family", profiler::name(f.key)},
                    {"share", f.weight()},
                    {"ops", f.candidates.size()},
                    {"points", one.points},
                    {"seconds", one.seconds}});
    table.row({profiler::name(f.key), fmt::format("{:.1f}%", 100 * f.weight()), std::to_string(f.candidates.size()),
               std::to_string(one.points), duration(one.seconds)});
  }
  if (json) {
    print_json("drydock.profile.plan", {{"system", work.system.name()},
                                        {"deployments", work.deployments},
                                        {"points", all.points},
                                        {"seconds", all.seconds},
                                        {"budget_s", options.budget_s},
                                        {"target_error", options.target_error},
                                        {"families", list},
                                        {"skipped", work.skipped}});
    return;
  }
  print_machine(work);
  fmt::print("{} deployments ask for these families of ops; some {} points, {}, budget {}\n{}", work.deployments,
             all.points, duration(all.seconds), duration(options.budget_s), table.text());
}

void print_report(const ProfileWork& work, const CampaignReport& r, const profiler::CampaignOptions& options,
                  const Context& context) {
  if (context.json) {
    print_json("drydock.profile", report_json(work, r, options, context.database));
    return;
  }
  print_machine(work);
  Table table({"family", "share", "ops", "points", "error", "left out", ""}, "lrrrrrl");
  for (const profiler::FamilyReport& f : r.families)
    table.row({f.name, fmt::format("{:.1f}%", 100 * f.weight), std::to_string(f.candidates), std::to_string(f.points),
               f.error < 1 && !work.again ? fmt::format("{:.1f}%", 100 * f.error) : "-",
               f.left_out_error > 0 ? fmt::format("{:.1f}%", 100 * f.left_out_error) : "-",
               f.met && !work.again ? "met" : ""});
  fmt::print("{}", table.text());
  print_energy(r);
  print_parts(r);
  print_failures("failed", r.failed);
  print_failures("refused", r.refused);
  if (r.throttled + r.drifting + r.bimodal > 0)
    fmt::print("{} samples dropped under throttling; {} points drift, {} have two modes\n", r.throttled, r.drifting,
               r.bimodal);
  if (work.again) {
    fmt::print("{} ops measured in {} s: {}; they are in {}\n", r.points, human(r.seconds), sentence(r.ending),
               context.database);
    return;
  }
  fmt::print("{} points measured and {} found in {} s; expected error {:.1f}%, target {:.1f}%: {}\n", r.points,
             r.reused, human(r.seconds), 100 * r.error, 100 * options.target_error, sentence(r.ending));
  fmt::print("{} surfaces and the points are in {}\n", r.surfaces, context.database);
}

}  // namespace drydock::cli
