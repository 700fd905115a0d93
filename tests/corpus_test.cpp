// Replays the fuzzer's corpus: seeds, and inputs that once broke something.
#include <doctest/doctest.h>

#include "tests/fuzz/replay.h"
#include "tests/fuzz/targets.h"

TEST_CASE("every config.json of the corpus is read or refused in one line") {
  drydock::fuzz::replay("config", drydock::fuzz::config);
}
TEST_CASE("every plan of the corpus is read or refused in one line") {
  drydock::fuzz::replay("plan", drydock::fuzz::plan);
}
TEST_CASE("every CSV of the corpus is read or refused in one line") {
  drydock::fuzz::replay("csv", drydock::fuzz::csv);
}
TEST_CASE("every database of the corpus is read or refused in one line") {
  drydock::fuzz::replay("database", drydock::fuzz::database);
}
TEST_CASE("every trace of the corpus is read or refused in one line") {
  drydock::fuzz::replay("trace", drydock::fuzz::trace);
}
TEST_CASE("every load of the corpus is served to its end") { drydock::fuzz::replay("load", drydock::fuzz::load); }
TEST_CASE("every length of the corpus is read or refused in one line") {
  drydock::fuzz::replay("lengths", drydock::fuzz::lengths);
}
TEST_CASE("every speculation of the corpus is read or refused in one line") {
  drydock::fuzz::replay("speculation", drydock::fuzz::speculation);
}
TEST_CASE("every scaling policy of the corpus is read or refused in one line") {
  drydock::fuzz::replay("policy", drydock::fuzz::policy);
}
TEST_CASE("every expert histogram of the corpus is read or refused in one line") {
  drydock::fuzz::replay("histogram", drydock::fuzz::histogram);
}
TEST_CASE("every safetensors file of the corpus is read or refused in one line") {
  drydock::fuzz::replay("safetensors", drydock::fuzz::safetensors);
}
TEST_CASE("every tokenizer of the corpus is read or refused in one line, and cuts its text") {
  drydock::fuzz::replay("tokenizer", drydock::fuzz::tokenizer);
}
TEST_CASE("every event stream of the corpus is read or refused in one line") {
  drydock::fuzz::replay("sse", drydock::fuzz::sse);
}
TEST_CASE("every message of the corpus is read or refused in one line") {
  drydock::fuzz::replay("wire", drydock::fuzz::wire);
}
TEST_CASE("every runtime.json of the corpus is read or refused in one line") {
  drydock::fuzz::replay("serve_config", drydock::fuzz::serve_config);
}
TEST_CASE("every completion request of the corpus is read or refused in one line") {
  drydock::fuzz::replay("completion", drydock::fuzz::completion);
}
TEST_CASE("every answer of the corpus is told the same wherever its tokens end") {
  drydock::fuzz::replay("answer", drydock::fuzz::answer);
}
