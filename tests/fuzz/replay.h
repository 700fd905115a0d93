#pragma once
// Replays the fuzzer's corpus of a target: seeds, and inputs that once broke something.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace drydock::fuzz {

inline void replay(const char* target, void (*entry)(std::string_view)) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(fs::path(DRYDOCK_SOURCE_DIR) / "tests/fuzz/corpus" / target))
    files.push_back(file.path());
  std::sort(files.begin(), files.end());
  REQUIRE(files.size() >= 3);
  for (const fs::path& file : files) {
    CAPTURE(file);
    CHECK_NOTHROW(entry(core::read_file(file)));
  }
}

}  // namespace drydock::fuzz
