#include <doctest/doctest.h>

#include <algorithm>

#include "core/csv.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/fake_openai.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::tests;

namespace {

// Predicted on one H200: about 50 ms to the first token and 10 ms for each other.
const char kBenchPlan[] = R"({"schema": "drydock.plan", "version": 1, "model": "Qwen/Qwen3-32B", "precision": "fp8",
  "backend": "drydock", "mode": "agg", "pools": [{"role": "worker", "system": "h200_sxm", "tp": 1, "replicas": 1,
  "max_batch": 64, "max_tokens": 8192}], "workload": {"isl": 100, "osl": 20, "concurrency": 4},
  "slo": {"ttft_ms": 60, "tpot_ms": 30}})";

struct BenchBed {
  Scratch scratch;
  std::string plan = scratch.write("plan.json", kBenchPlan);
  FakeServer server{[](const std::string& path, const std::string& body) {
    FakeAnswer models;
    models.pieces = {{0, R"({"object":"list","data":[{"id":"other"},{"id":"Qwen/Qwen3-32B"}]})"}};
    if (path == "/v1/models") return models;
    const core::Json asked = core::parse_json(body, "body");
    return FakeAnswer::stream(asked["max_tokens"], 50, 10, static_cast<int>(asked["prompt"].size()));
  }};

  Run run(std::vector<std::string> more, bool with_plan = true) const {
    std::vector<std::string> all = {"bench", "--url", server.url()};
    if (with_plan) all.insert(all.end(), {"--plan", plan});
    all.insert(all.end(), more.begin(), more.end());
    return run_drydock(all);
  }
};

}  // namespace

TEST_CASE("bench measures a server, predicts it and adds a row that validate reads") {
  const BenchBed bed;
  const std::string rows = bed.scratch / "rows.csv", out = bed.scratch / "out";
  const Run run = bed.run({"--requests", "20", "--warmup", "4", "--compare", "--json", "--save", rows, "--out", out});
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  const core::Json json = core::parse_json(run.out, "stdout");
  CHECK(json["schema"] == "drydock.bench");
  CHECK(json["server"].get<std::string>().starts_with("Qwen/Qwen3-32B at http://127.0.0.1:"));
  const core::Json& measured = json["measured"];
  CHECK(measured["requests"] == 20);
  CHECK(measured["ttft_ms"]["mean"].get<double>() == doctest::Approx(62).epsilon(0.2));
  CHECK(measured["tpot_ms"]["mean"].get<double>() == doctest::Approx(10).epsilon(0.2));
  CHECK(measured["good_share"].get<double>() > 0.5);
  // 4 warm-up requests are served too, and counted by the server.
  CHECK(measured["server_prompt_tokens"].get<int64_t>() > measured["prompt_tokens"].get<int64_t>());
  // The same requests: 20 of them, with the same tokens.
  CHECK(json["predicted"]["requests"] == 20);
  CHECK(json["predicted"]["prompt_tokens"].get<double>() ==
        doctest::Approx(measured["prompt_tokens"].get<double>()).epsilon(0.02));
  CHECK(json["error"]["tpot_ms"]["mean"].get<double>() ==
        doctest::Approx(json["predicted"]["tpot_ms"]["mean"].get<double>() / measured["tpot_ms"]["mean"].get<double>() -
                        1));
  CHECK(core::parse_json(core::read_file(out + "/bench.json"), "bench.json")["measured"] == measured);
  CHECK(lines(core::read_file(out + "/requests.csv")) == 1 + 24);

  // Far from any prediction: 3, with the figures on stderr. The row is there all the same.
  const Run outside = bed.run({"--requests", "8", "--compare", "--within", "ttft=0.01%,tpot=1000%", "--save", rows});
  CHECK(outside.exit_code == 3);
  CHECK(lines(outside.err) == 2);
  CHECK(outside.err.starts_with("drydock: TTFT mean ms: measured "));
  CHECK(outside.out.find("  measured  predicted") != std::string::npos);
  const core::Csv saved = core::Csv::read(rows);
  REQUIRE(saved.rows() == 2);
  CHECK(saved.cell(0, saved.column("concurrency")) == "4");
  const Run validated = run_drydock({"validate", "--points", rows, "--json"});
  CAPTURE(validated.err);
  REQUIRE(validated.exit_code == 0);
  const core::Json all = core::parse_json(validated.out, "stdout")["clean"];
  CHECK((all["rows"] == 2 && all["predicted"] == 2));
}

TEST_CASE("bench takes any load and says what is wrong with its flags in one line") {
  const BenchBed bed;
  const Run open = bed.run({"--rate", "40", "--isl", "30", "--osl", "3", "--requests", "20", "--json"}, false);
  REQUIRE(open.exit_code == 0);
  const core::Json json = core::parse_json(open.out, "stdout");
  CHECK(json["measured"]["requests"] == 20);
  CHECK(json["server"].get<std::string>().starts_with("other at "));
  const std::string trace =
      bed.scratch.write("t.jsonl", R"({"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [1, 2]}
{"timestamp": 100, "input_length": 600, "output_length": 4, "hash_ids": [1, 3]}
)");
  const Run traced = bed.run({"--trace", trace, "--speed", "2"}, false);
  CHECK(traced.exit_code == 0);
  CHECK(traced.out.find("2 requests in") != std::string::npos);

  const auto refused = [&](const std::vector<std::string>& flags, const std::string& message, bool with_plan = true) {
    const Run run = bed.run(flags, with_plan);
    CHECK(run.exit_code == 2);
    CHECK(run.out == "");
    CHECK(run.err == "drydock: " + message + "\n");
  };
  refused({"--compare", "--concurrency", "1", "--isl", "1", "--osl", "1"},
          "--compare: goes with --plan, which is what is predicted", false);
  refused({"--concurrency", "1"}, "--isl and --osl, or --lengths: needed without --plan", false);
  refused({}, "--concurrency, --rate, --trace, --sessions or --ramp: want one of them, or --plan", false);
  refused({"--compare", "--within", "5"}, "--within '5': want 5% or ttft=15%,tpot=10%");
  refused({"--endpoint", "embeddings"}, "--endpoint 'embeddings': want completions or chat");
  refused({"--api-key-env", "DRYDOCK_NO_SUCH_KEY"},
          "--api-key-env: the environment has no variable 'DRYDOCK_NO_SUCH_KEY'");
  refused({"--extra", "[1]"}, "--extra: want a JSON object, such as '{\"min_tokens\": 10}'");
  const Run nobody = run_drydock({"bench", "--url", "http://127.0.0.1:1", "--plan", bed.plan});
  CHECK((nobody.exit_code == 2 && nobody.out == "" && lines(nobody.err) == 1));
  CHECK(nobody.err.starts_with("drydock: --url http://127.0.0.1:1: no answer"));
  const std::string other = bed.scratch.write("other.csv", "a,b\n1,2\n");
  refused({"--save", other}, other + ": has other columns than `bench --save` writes; name another file");
}
