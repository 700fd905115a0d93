#pragma once
// What a plan can be turned into: each target is a function from a plan to files, pure text.
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/architecture.h"
#include "models/plan.h"
#include "models/system.h"

namespace drydock::generators {

struct PlannerProfile;

struct OutputFile {
  std::string path;  // relative to the output folder, '/' between its parts; every part is a safe_name
  std::string text;
  std::string what;  // one line for the manifest
  bool executable = false;
};

// What targets are given: the plan and what its names stand for. References outlive the call.
struct Request {
  const models::Plan& plan;
  const models::Architecture& architecture;
  std::map<std::string, models::System> systems;  // by name, one for each that a pool names
  std::map<std::string, std::string> settings;    // --set key=value, keys checked against Target::settings
  std::string command;                            // as the user typed it, for the header comment; may be empty
  std::string version;                            // of drydock
  // What the simulator took for granted, which engines must be told: the formats as deployed, and how much of a GPU's
  // memory the engine was to fill. `cli` fills them from what the prediction used.
  models::Precision precision;
  double memory_fraction = 0.9;
  std::shared_ptr<const PlannerProfile> planner_profile = nullptr;  // simulated, for those who want it; may be absent

  // The setting, or `otherwise`.
  std::string set(const std::string& key, std::string_view otherwise) const;
  // Throws core::Error naming the pool when `systems` lacks its own.
  const models::System& system(const models::Pool& pool) const;
};

struct Setting {
  std::string_view key, what, otherwise;  // otherwise: its default, as the help shows it
};

struct Target {
  std::string_view name, what;
  std::span<const Setting> settings;
  // Throws core::Error when the target can't express the plan, naming what it lacks.
  std::vector<OutputFile> (*files)(const Request& request);
};

std::span<const Target> targets();
// Throws core::Error listing the known ones.
const Target& target(std::string_view name);

// 16 hex digits of a hash (FNV-1a, 64 bits) of the plan's canonical JSON without its prediction: the same for the same
// plan on every machine, however often it was estimated.
std::string plan_hash(const models::Plan& plan);
// "Made by drydock 0.1.0 from plan 1f2e3d4c5b6a7988" and the command, each line after `comment` ("# "), in printable
// ASCII, as nothing else is safe in the comments of every format.
std::string header(const Request& request, std::string_view comment);

}  // namespace drydock::generators
