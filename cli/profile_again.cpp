#include "cli/profile_again.h"

#include <set>

#include "core/error.h"
#include "models/catalogue.h"
#include "perfdb/simulated.h"
#include "profiler/cpu_device.h"
#include "profiler/remeasure.h"
#include "profiler/simulated_device.h"

namespace drydock::cli {
namespace {

std::set<std::string> systems_in(const perfdb::Database& base) {
  std::set<std::string> out;
  for (const auto& content : base.contents())
    if (content.measurements > 0 && content.backend == profiler::kBackend) out.insert(content.system);
  return out;
}

// The target that rows of a system come from.
std::string target_of_rows(const std::string& system) {
  if (system.ends_with(perfdb::kSimulatedSuffix)) return "simulated";
  return system == profiler::kHostSystem ? "cpu" : "cuda";
}

models::System known_system(const std::string& name, const std::string& target) {
  if (target == "simulated") return profiler::usual_silicon(models::find_system(name)).system;
  return models::find_system(name);
}

}  // namespace

AgainOps ops_of(const std::string& file, const std::string& system, const std::string& target) {
  const perfdb::Database base = perfdb::Database::open(file, perfdb::Access::read);
  const std::set<std::string> systems = systems_in(base);
  AgainOps out;
  if (!system.empty()) out.system = known_system(system, target);
  if (system.empty() && systems.size() == 1 && target == "cuda") out.system = known_system(*systems.begin(), target);
  if (system.empty() && systems.size() == 1) out.system.hardware.name = *systems.begin();
  const std::string& name = out.system.name();
  if (!systems.contains(name))
    throw core::Error("--ops " + file + ": has measured ops of " + std::to_string(systems.size()) +
                      " systems and backend drydock" +
                      (name.empty() ? "; want one, or --system" : ", none of " + name));
  if (target_of_rows(name) != target)
    throw core::Error("--ops " + file + ": its ops are of " + name + "; want --target " + target_of_rows(name));
  out.ops = profiler::measured_ops(base, name);
  return out;
}

}  // namespace drydock::cli
