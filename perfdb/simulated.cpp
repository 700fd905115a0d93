#include "perfdb/simulated.h"

#include "core/error.h"

namespace drydock::perfdb {

std::string simulated_name(std::string_view system) {
  std::string out(system);
  if (!system.ends_with(kSimulatedSuffix)) out += kSimulatedSuffix;
  return out;
}

void refuse_simulated(const Database& database, std::string_view system) {
  if (system.ends_with(kSimulatedSuffix)) return;
  const std::string likeness = simulated_name(system);
  bool has_own = false, has_likeness = false;
  for (const Database::Content& content : database.contents()) {
    has_own |= content.system == system;
    has_likeness |= content.system == likeness;
    if (content.system == system && content.version.starts_with(kSimulatedVersion))
      throw core::Error(database.file().string() + ": times of simulated silicon under the name of " +
                        std::string(system) + "; measure into a new database");
  }
  if (has_likeness && !has_own)
    throw core::Error(database.file().string() + ": has times of simulated silicon alone, " + likeness +
                      ", and none of " + std::string(system) +
                      "; want --system with the file that profile --system-out wrote");
}

}  // namespace drydock::perfdb
