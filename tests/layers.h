#pragma once
// Reads a source tree's includes and link lines and tells which break the order of its folders.
#include <filesystem>
#include <string>
#include <vector>

namespace drydock::tests {

// One line a breach: "perfdb/lookup.h:3 includes models/plan.h: perfdb may use core". The table is
// docs/architecture.md's.
std::vector<std::string> layer_breaches(const std::filesystem::path& root);

}  // namespace drydock::tests
