#include "cli/plan_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "simulator/engine_options.h"

namespace drydock::cli {
namespace {

double parse_skew(const std::string& text) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || !(value >= 0 && value <= 10))
    throw core::Error("--expert-skew '" + text.substr(0, 60) + "': want an exponent from 0 to 10, such as 0.8");
  return value;
}

void apply_experts(const PlanFlags& flags, models::Experts& experts) {
  if (!flags.expert_skew.empty() && !flags.expert_histogram.empty())
    throw core::Error("--expert-skew and --expert-histogram: give one of them");
  if (!flags.expert_skew.empty()) experts = {parse_skew(flags.expert_skew), "", experts.slots};
  if (!flags.expert_histogram.empty()) experts = {std::nullopt, flags.expert_histogram, experts.slots};
  if (flags.expert_slots.empty()) return;
  experts.slots = static_cast<int>(parse_count(flags.expert_slots, "--expert-slots", models::kMostExpertSlots));
  if (!experts.uneven())
    throw core::Error(
        "--expert-slots: goes with --expert-skew or --expert-histogram, by which experts get their slots");
}

}  // namespace

void add_plan_flags(CLI::App& command, PlanFlags& flags, const char* otherwise, const char* group) {
  const auto add = [&](const char* name, std::string& value, const char* what) {
    CLI::Option* option = command.add_option(name, value, fmt::format("{} (default: {})", what, otherwise));
    if (group) option->group(group);
    return option;
  };
  add("--speculative", flags.speculative, "speculative decoding: mtp:k=3,p=0.8; eagle, draft, ngram");
  add("--expert-skew", flags.expert_skew, "experts are chosen by a power law with this exponent");
  add("--expert-histogram", flags.expert_histogram, "experts are chosen as counted in this JSON")->type_name("FILE");
  add("--expert-slots", flags.expert_slots, "expert slots of an instance, redundant ones placed by EPLB");
}

void apply(const PlanFlags& flags, const models::Architecture& architecture, const std::string& origin,
           std::string& speculative, models::Experts& experts) {
  if (!flags.speculative.empty()) speculative = flags.speculative;
  simulator::speculation_of(speculative, architecture,
                            flags.speculative.empty() ? origin + ": field 'speculative'" : "--speculative");
  apply_experts(flags, experts);
  const char* flag = !flags.expert_slots.empty()       ? "--expert-slots"
                     : !flags.expert_histogram.empty() ? "--expert-histogram"
                     : !flags.expert_skew.empty()      ? "--expert-skew"
                                                       : nullptr;
  simulator::check_experts(experts, architecture, flag ? std::string(flag) : origin + ": field 'experts'");
}

void write_placements(const std::vector<std::pair<models::Role, std::string>>& placements, const std::string& dir) {
  std::error_code status;  // those of an earlier plan would pass for this one's
  for (const char* file : {"expert_placement.json", "expert_placement_prefill.json"})
    std::filesystem::remove(std::filesystem::path(dir) / file, status);
  for (const auto& [role, json] : placements)
    core::write_file(std::filesystem::path(dir) /
                         (role == models::Role::prefill ? "expert_placement_prefill.json" : "expert_placement.json"),
                     json);
}

}  // namespace drydock::cli
