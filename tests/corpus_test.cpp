// Replays the fuzzer's corpus: seeds, and inputs that once broke something.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "core/file.h"
#include "tests/fuzz/targets.h"

namespace fs = std::filesystem;

namespace {

void replay(const char* target, void (*entry)(std::string_view)) {
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

TEST_CASE("every config.json of the corpus is read or refused in one line") { replay("config", drydock::fuzz::config); }
TEST_CASE("every plan of the corpus is read or refused in one line") { replay("plan", drydock::fuzz::plan); }
TEST_CASE("every CSV of the corpus is read or refused in one line") { replay("csv", drydock::fuzz::csv); }
TEST_CASE("every database of the corpus is read or refused in one line") {
  replay("database", drydock::fuzz::database);
}
TEST_CASE("every trace of the corpus is read or refused in one line") { replay("trace", drydock::fuzz::trace); }
TEST_CASE("every load of the corpus is served to its end") { replay("load", drydock::fuzz::load); }
TEST_CASE("every length of the corpus is read or refused in one line") { replay("lengths", drydock::fuzz::lengths); }
TEST_CASE("every speculation of the corpus is read or refused in one line") {
  replay("speculation", drydock::fuzz::speculation);
}
TEST_CASE("every scaling policy of the corpus is read or refused in one line") {
  replay("policy", drydock::fuzz::policy);
}
TEST_CASE("every expert histogram of the corpus is read or refused in one line") {
  replay("histogram", drydock::fuzz::histogram);
}
TEST_CASE("every safetensors file of the corpus is read or refused in one line") {
  replay("safetensors", drydock::fuzz::safetensors);
}
TEST_CASE("every tokenizer of the corpus is read or refused in one line, and cuts its text") {
  replay("tokenizer", drydock::fuzz::tokenizer);
}
TEST_CASE("every event stream of the corpus is read or refused in one line") { replay("sse", drydock::fuzz::sse); }
TEST_CASE("every message of the corpus is read or refused in one line") { replay("wire", drydock::fuzz::wire); }
TEST_CASE("every runtime.json of the corpus is read or refused in one line") {
  replay("serve_config", drydock::fuzz::serve_config);
}
TEST_CASE("every completion request of the corpus is read or refused in one line") {
  replay("completion", drydock::fuzz::completion);
}
TEST_CASE("every answer of the corpus is told the same wherever its tokens end") {
  replay("answer", drydock::fuzz::answer);
}
