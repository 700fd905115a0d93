#pragma once
// Times of simulated silicon are kept under a name of their own, so that no answer about a real machine rests on them.
#include <string>
#include <string_view>

#include "perfdb/database.h"

namespace drydock::perfdb {

inline constexpr std::string_view kSimulatedSuffix = "_simulated";   // of the system's name
inline constexpr std::string_view kSimulatedVersion = "simulated-";  // begins the version of rows and surfaces

// "h200_sxm_simulated" for "h200_sxm", and for itself.
std::string simulated_name(std::string_view system);

// Throws core::Error, naming the file, when what it holds for `system` was simulated without its name saying so, or
// when it holds nothing for `system` but times of simulated silicon in its likeness.
void refuse_simulated(const Database& database, std::string_view system);

}  // namespace drydock::perfdb
