// Replays the fuzzer's corpus of YAML files, which only builds with the command have readers for.
#include <doctest/doctest.h>

#include "tests/fuzz/replay.h"
#include "tests/fuzz/targets.h"

TEST_CASE("every sweep of the corpus is read or refused in one line") {
  drydock::fuzz::replay("sweep", drydock::fuzz::sweep);
}
TEST_CASE("every fleet of the corpus is read or refused in one line") {
  drydock::fuzz::replay("fleet", drydock::fuzz::fleet);
}
