// Replays the fuzzer's corpus of YAML files, which only builds with the command have readers for.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "core/file.h"
#include "tests/fuzz/targets.h"

namespace {

void replay_yaml(const char* target, void (*entry)(std::string_view)) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(fs::path(DRYDOCK_SOURCE_DIR) / "tests/fuzz/corpus" / target))
    files.push_back(file.path());
  std::sort(files.begin(), files.end());
  REQUIRE(files.size() >= 3);
  for (const fs::path& file : files) {
    CAPTURE(file);
    CHECK_NOTHROW(entry(drydock::core::read_file(file)));
  }
}

}  // namespace

TEST_CASE("every sweep of the corpus is read or refused in one line") { replay_yaml("sweep", drydock::fuzz::sweep); }
TEST_CASE("every fleet of the corpus is read or refused in one line") { replay_yaml("fleet", drydock::fuzz::fleet); }
