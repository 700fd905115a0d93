#pragma once
// Which release of an engine the files are for: names of flags change between them.
#include <array>
#include <string>
#include <string_view>

#include "generators/target.h"

namespace drydock::generators {

// Major, minor, patch; what follows ("rc1", ".post1") is left out.
struct EngineVersion {
  std::array<int, 3> part{};
  auto operator<=>(const EngineVersion&) const = default;
};

// The oldest and the newest release whose flags were compared with its source: tests/data/engine_flags.
struct CheckedVersions {
  std::string_view engine;  // "vllm"
  EngineVersion oldest, newest;
};
inline constexpr CheckedVersions kVllmVersions = {"vllm", {{0, 15, 0}}, {{0, 33, 0}}};
inline constexpr CheckedVersions kSglangVersions = {"sglang", {{0, 5, 9}}, {{0, 5, 23}}};
inline constexpr CheckedVersions kTrtllmVersions = {"trtllm", {{1, 1, 0}}, {{1, 2, 1}}};

// --set engine-version, else the newest checked. Throws core::Error when it is not one, or was not checked: a patch
// beyond the newest one's minor version is taken to have its flags, except where the engine counts its releases by it.
EngineVersion engine_version(const Request& request, const CheckedVersions& checked);

std::string text(const EngineVersion& version);

}  // namespace drydock::generators
