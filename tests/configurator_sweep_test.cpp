#include <doctest/doctest.h>

#include <set>

#include "configurator/sweep.h"
#include "configurator/sweep_store.h"
#include "configurator/yaml.h"
#include "core/file.h"
#include "perfdb/sqlite.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::configurator;
using drydock::tests::Scratch;

namespace {

// 2 models x 3 systems x 1 precision x 2 backends x 1 x 2 workloads x 2 targets = 48 items.
constexpr const char* kSweep = R"(
models: [Qwen/Qwen3-8B, Qwen/Qwen3-32B]
systems: [h100_sxm, l40s, {prefill: h200_sxm, decode: h100_sxm}]
backend: [auto, vllm]
gpus: 4
workloads:
  - {name: chat, isl: 1000, osl: 100}
  - {isl: 2000, osl: 50, rate: 2.5, prefix_hit: 0.5}
slos: [{name: tight, ttft: 1s, tpot: 20}, {tpot: 50ms, percentile: mean}]
prices: {h100_sxm: 2.5, l40s: 1}
)";

std::string refusal(const std::string& yaml) {
  try {
    parse_sweep(yaml, "s.yaml");
  } catch (const core::Error& error) {
    return error.what();
  }
  return "";
}

std::string with(const std::string& more) { return "models: m\nsystems: s\nworkloads: {isl: 10, osl: 10}\n" + more; }

core::Json answer(int64_t item) { return {{"item", item}, {"status", "refused"}, {"reason", "test"}}; }

}  // namespace

TEST_CASE("YAML: what it holds, and on which line") {
  const YamlNode root = parse_yaml("# head\na: 1\nb:\n  - x\n  - {c: 'two words', d: ~}\n", "f.yaml");
  REQUIRE(root.fields.size() == 2);
  CHECK(root.fields[0].name == "a");
  CHECK(root.fields[0].value.line == 2);
  const YamlNode& list = root.fields[1].value;
  REQUIRE(list.items.size() == 2);
  CHECK(list.items[0].text == "x");
  CHECK(list.items[0].line == 4);
  CHECK(list.items[1].fields[0].value.text == "two words");
  CHECK(list.items[1].fields[1].value.kind == YamlNode::Kind::null);
}

TEST_CASE("YAML: bombs and oddities are refused in one line that says where") {
  const auto refused = [](const std::string& yaml) -> std::string {
    try {
      parse_yaml(yaml, "f.yaml");
    } catch (const core::Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(refused("a: &x [1, 2]\nb: *x\n") ==
        "f.yaml: line 1: anchors and aliases are not read here; write the value out");
  CHECK(refused("a: 1\na: 2\n") == "f.yaml: line 2: key 'a' is there twice");
  CHECK(refused("a: !!python/object x\n").find("line 1: tags such as") != std::string::npos);
  CHECK(refused("a: 1\n---\nb: 2\n") == "f.yaml: has more than one document; want one");
  CHECK(refused("") == "f.yaml: is empty");
  CHECK(refused("a: [1, 2\n").find("f.yaml: line 2: ") == 0);
  CHECK(refused("[a]: 1\n") == "f.yaml: line 1: a key must be plain text");
  CHECK(refused("a: " + std::string(9, '[') + std::string(9, ']')) == "f.yaml: line 1: nested deeper than 8 levels");
  CHECK(refused(std::string(100'000, '[')) != "");
  CHECK(refused(std::string(300 << 10, 'a')) == "f.yaml: 307200 bytes of YAML; at most 262144");
  std::string many = "a: [";
  for (int i = 0; i < 20'001; ++i) many += "1,";
  CHECK(refused(many + "]") == "f.yaml: line 1: more than 20000 values");
  CHECK(refused(std::string("a: \0b", 5)) == "f.yaml: holds a zero byte; want text");
}

TEST_CASE("a sweep is every combination, the last list fastest") {
  const Sweep s = parse_sweep(kSweep, "s.yaml");
  REQUIRE(s.items() == 48);
  const SweepItem first = sweep_item(s, 0), second = sweep_item(s, 1), last = sweep_item(s, 47);
  CHECK(first.question.model == "Qwen/Qwen3-8B");
  CHECK(first.question.system == "h100_sxm");
  CHECK(!first.question.backend);
  CHECK(first.question.gpus == 4);
  CHECK(first.workload == "chat");
  CHECK(first.slo == "tight");
  CHECK(first.question.slo.ttft_ms == 1000);
  CHECK(first.question.slo.percentile == 95);
  CHECK(second.workload == "chat");
  CHECK(second.slo == "tpot 50 mean");
  CHECK(!second.question.slo.percentile);
  CHECK(last.question.model == "Qwen/Qwen3-32B");
  CHECK(last.question.system == "h200_sxm");
  CHECK(last.question.decode_system == "h100_sxm");
  CHECK(last.question.backend == models::Backend::vllm);
  CHECK(last.workload == "2000/50 hit 0.5 rate 2.5");
  std::set<std::string> all;
  for (int64_t i = 0; i < s.items(); ++i) {
    const SweepItem item = sweep_item(s, i);
    all.insert(item.question.model + item.question.system + (item.question.backend ? "v" : "a") + item.workload +
               item.slo);
  }
  CHECK(all.size() == 48);
}

TEST_CASE("the layout of the file does not matter to a sweep's identity, its content does") {
  const core::Json json = sweep_json(parse_sweep(kSweep, "s.yaml"));
  std::string other = std::string("# a comment\n") + kSweep;
  CHECK(sweep_json(parse_sweep(other, "t.yaml")) == json);
  other += "mode: agg\n";
  CHECK(sweep_json(parse_sweep(other, "t.yaml")) != json);
}

TEST_CASE("shards part the items") {
  for (const int64_t n : {1, 2, 3, 7, 48, 60}) {
    int64_t sum = 0;
    for (int64_t item = 0; item < 48; ++item) {
      int owners = 0;
      for (int64_t k = 1; k <= n; ++k) owners += Shard{k, n}.has(item);
      REQUIRE(owners == 1);
    }
    for (int64_t k = 1; k <= n; ++k) sum += Shard{k, n}.items(48);
    CHECK(sum == 48);
  }
  CHECK(parse_shard("2/8", "--shard").k == 2);
  for (const char* bad : {"", "0/4", "5/4", "1", "1/", "/4", "a/b", "1/4x", "-1/4", "1/99999999999999999999"})
    CHECK_THROWS_AS(parse_shard(bad, "--shard"), core::Error);
  CHECK_THROWS_WITH_AS(parse_shard("9/8", "--shard"), "--shard '9/8': want k/n with k from 1 to n, such as 2/8",
                       core::Error);
}

TEST_CASE("what is wrong with a sweep is told by file, line and field") {
  CHECK(refusal("models: m\n") == "s.yaml: line 1: field 'systems': missing");
  CHECK(refusal(with("modles: x\n")) == "s.yaml: line 4: field 'modles': not known here, did you mean 'models'?");
  CHECK(refusal(with("gpus: [4, 0]\n")) ==
        "s.yaml: line 4: field 'gpus[1]': want a whole number from 1 to 16384, found '0'");
  CHECK(refusal(with("gpus: [4, 4]\n")) == "s.yaml: line 4: field 'gpus': '4' is there twice");
  CHECK(refusal(with("gpus: []\n")) == "s.yaml: line 4: field 'gpus': the list is empty");
  CHECK(
      refusal(with("backend: [vlm]\n")) ==
      "s.yaml: line 4: field 'backend[0]': 'vlm' is none of auto, trtllm, vllm, sglang, drydock, did you mean 'vllm'?");
  CHECK(refusal(with("precision: fp9\n")).find("'fp9' is none of auto, bf16") != std::string::npos);
  CHECK(refusal(with("slos: [{tpot: fast}]\n")) ==
        "s.yaml: line 4: field 'slos[0].tpot': want a time above 0 such as 20, 20ms or 1.5s, found 'fast'");
  CHECK(refusal(with("slos: [{percentile: p20}]\n")).find("want mean, or p50 to p99.9") != std::string::npos);
  CHECK(refusal(with("goal: fewest_gpus\n")).find("fewest_gpus needs a rate or a concurrency") != std::string::npos);
  CHECK(refusal(with("prices: {s: -1}\n")).find("field 'prices.s'") != std::string::npos);
  CHECK(refusal("models: m\nsystems: s\nworkloads: [{isl: 1, osl: 1, rate: 1, concurrency: 2}]\n") ==
        "s.yaml: line 3: field 'workloads[0].concurrency': goes without rate; give one of them");
  CHECK(refusal("- a\n") == "s.yaml: line 1: want a map of fields, found a list");
  std::string wide = "models: [";
  for (int i = 0; i < 1000; ++i) wide += "m" + std::to_string(i) + ",";
  std::string gpus = "]\nsystems: s\ngpus: [";
  for (int i = 1; i <= 1000; ++i) gpus += std::to_string(i) + ",";
  CHECK(refusal(wide + gpus + "]\nworkloads: [{isl: 1, osl: 1}, {isl: 2, osl: 1}]\n") ==
        "s.yaml: 2000000 combinations; at most 1000000");
  Resources resources;
  CHECK_THROWS_WITH_AS(
      prepare_sweep(
          parse_sweep("models:\n  - Qwen/Qwen3-8B\nsystems:\n  - h100_sxn\nworkloads: {isl: 1, osl: 1}", "s.yaml"),
          resources),
      doctest::Contains("s.yaml: line 4: "), core::Error);
}

TEST_CASE("a store keeps answers, by item, and refuses those to another sweep") {
  const Scratch scratch;
  const core::Json sweep = {{"models", {"m"}}, {"items", 6}}, basis = {{"drydock", "1"}, {"database", "a"}};
  const auto file = scratch.path() / "shard-1-of-2.db";
  {
    SweepStore store = SweepStore::write(file, sweep, basis);
    for (const int64_t item : {4, 0, 2}) store.put(item, answer(item).dump(), 5);
  }
  CHECK(is_sweep_file(file));
  SweepStore again = SweepStore::write(file, sweep, basis);
  CHECK(again.done() == std::set<int64_t>{0, 2, 4});
  CHECK_THROWS_WITH_AS(SweepStore::write(file, {{"models", {"n"}}}, basis),
                       doctest::Contains("answers to another sweep"), core::Error);
  CHECK_THROWS_WITH_AS(SweepStore::write(file, sweep, {{"drydock", "1"}, {"database", "b"}}),
                       doctest::Contains("rest on another database"), core::Error);

  const auto second = scratch.path() / "shard-2-of-2.db", merged = scratch.path() / "merged.db";
  SweepStore::write(second, sweep, basis).put(1, answer(1).dump(), 5);
  CHECK(SweepStore::merge(merged, file) == 3);
  CHECK(SweepStore::merge(merged, second) == 1);
  CHECK(SweepStore::merge(merged, second) == 0);  // again changes nothing
  std::vector<int64_t> items;
  SweepStore::read(merged).each([&](int64_t item, const core::Json& a) {
    items.push_back(item);
    CHECK(a == answer(item));
  });
  CHECK(items == std::vector<int64_t>{0, 1, 2, 4});

  SweepStore::write(second, sweep, basis).put(0, "{\"item\":0,\"status\":\"met\"}", 5);
  CHECK_THROWS_WITH_AS(SweepStore::merge(merged, second), doctest::Contains("item 0 has another answer"), core::Error);
  CHECK(SweepStore::read(merged).count() == 4);
}

TEST_CASE("files that are no sweep's are refused in one line") {
  const Scratch scratch;
  const auto refused = [&](const std::string& name) -> std::string {
    try {
      SweepStore::read(scratch.path() / name);
    } catch (const core::Error& error) {
      return error.what();
    }
    return "";
  };
  scratch.write("text.db", "hello");
  {
    perfdb::Connection(scratch.path() / "other.db", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)
        .run("CREATE TABLE t(x)");
  }
  CHECK(refused("none.db").find("no such sweep file") != std::string::npos);
  CHECK(refused("text.db").find("is no file of a sweep") != std::string::npos);
  CHECK(refused("other.db").find("none of a sweep") != std::string::npos);
  CHECK(refused(".").find("is a folder") != std::string::npos);
  CHECK(!is_sweep_file(scratch.path() / "text.db"));
  const auto file = scratch.path() / "view.db";
  SweepStore::write(file, {{"items", 1}}, core::Json::object());
  { perfdb::Connection(file, SQLITE_OPEN_READWRITE).run("CREATE VIEW v AS SELECT 1"); }
  CHECK(refused("view.db").find("holds 'v', which is none of our tables") != std::string::npos);
  // One that was killed before its first commit is begun anew.
  scratch.write("empty.db", "");
  CHECK(SweepStore::write(scratch.path() / "empty.db", {{"items", 1}}, core::Json::object()).count() == 0);
}

TEST_CASE("what the search refuses is an answer, and an answer has its plan") {
  Resources resources;
  const Sweep s = parse_sweep(
      "models: [Qwen/Qwen3-8B, deepseek-ai/DeepSeek-R1]\nsystems: h100_sxm\nbackend: vllm\nmode: agg\ngpus: 1\n"
      "workloads: [{isl: 500, osl: 50}, {isl: 40000, osl: 10000}]\nslos: [{tpot: 30}, {tpot: 0.01}]\n",
      "s.yaml");
  prepare_sweep(s, resources);
  const core::Json met = sweep_answer(sweep_item(s, 0), resources), missed = sweep_answer(sweep_item(s, 1), resources),
                   refused = sweep_answer(sweep_item(s, 2), resources),
                   large = sweep_answer(sweep_item(s, 4), resources);
  CHECK(met["status"] == "met");
  const models::Plan plan = models::parse_plan(met["plan"].dump(), "plan");
  CHECK(plan.prediction->tail->tpot_ms.value <= 30);
  CHECK(missed["status"] == "missed");
  CHECK(missed["binding"]["target"] == "tpot");
  CHECK(missed["binding"]["share_of_target"] > 1);
  CHECK(refused["status"] == "refused");
  CHECK(refused["reason"].get<std::string>().find("more than the context") != std::string::npos);
  CHECK(large["status"] == "impossible");
  CHECK(large["reason"].get<std::string>().find("candidates: ") != std::string::npos);
  CHECK(sweep_answer(sweep_item(s, 0), resources).dump() == met.dump());
}
