#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "core/csv.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::tests;

namespace {

using Arguments = std::vector<std::string>;

Arguments question(const Arguments& more = {}) {
  Arguments all = {"recommend", "--model", "Qwen/Qwen3-32B", "--precision", "fp8",   "--system", "h200_sxm",
                   "--gpus",    "16",      "--backend",      "trtllm",      "--isl", "4000",     "--osl",
                   "1000",      "--ttft",  "1000",           "--tpot",      "20"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

core::Json json_of(const Arguments& arguments, int exit_code = 0) {
  const Run run = run_drydock(arguments);
  CAPTURE(run.err);
  REQUIRE(run.exit_code == exit_code);
  CHECK(run.err == "");
  return core::parse_json(run.out, "stdout");
}

bool is_figure(const core::Json& f) { return f["low"] <= f["value"] && f["value"] <= f["high"] && f["low"] > 0; }

}  // namespace

TEST_CASE("recommend: the fields that scripts rely on") {
  const core::Json json = json_of(question({"--json"}));
  CHECK(json["schema"] == "drydock.recommend");
  CHECK(json["version"] == 1);
  REQUIRE(!json["plans"].empty());
  for (const core::Json& plan : json["plans"]) {
    CHECK((plan["mode"] == "agg" || plan["mode"] == "disagg"));
    CHECK(plan["backend"] == "trtllm");
    CHECK(plan["gpus"] <= 16);
    for (const char* figure : {"ttft_ms", "tpot_ms", "tokens_per_s_per_gpu", "tokens_per_s_per_user"})
      CHECK(is_figure(plan[figure]));
    CHECK(plan["ttft_ms"]["value"] <= 1000);
    CHECK(plan["tpot_ms"]["value"] <= 20);
    for (const char* pool : {"worker", "prefill", "decode"}) {
      if (!plan.contains(pool)) continue;
      for (const char* field : {"tp", "pp", "ep", "moe_tp", "attention_dp", "replicas", "max_batch", "max_tokens"})
        CHECK(plan[pool][field] >= 1);
    }
    CHECK(plan.contains("worker") == (plan["mode"] == "agg"));
    CHECK(plan.contains("decode") == (plan["mode"] == "disagg"));
  }
  const core::Json& searched = json["searched"];
  CHECK(searched["enumerated"] == searched["illegal"].get<int>() + searched["out_of_memory"].get<int>() +
                                      searched["overloaded"].get<int>() + searched["priced"].get<int>());
  CHECK(searched["priced"] >= 1000);
  CHECK(searched["meeting_slo"] >= 1);
  CHECK(json["wall_ms"] > 0);
  CHECK(!json["breakdown"].empty());
}

TEST_CASE("recommend --out writes the plan, all ranked ones, the front and the runtime's configuration") {
  const Scratch scratch;
  const std::string dir = scratch / "out";
  REQUIRE(run_drydock(question({"--out", dir, "--top", "3"})).exit_code == 0);
  CHECK(core::read_file(dir + "/plan.json") == core::read_file(dir + "/plans/1.json"));
  CHECK(std::filesystem::exists(dir + "/plans/3.json"));
  CHECK(!std::filesystem::exists(dir + "/plans/4.json"));
  CHECK(core::read_json(dir + "/runtime.json")["schema"] == "drydock.runtime");
  const core::Csv front = core::Csv::read(dir + "/pareto.csv");
  CHECK(front.rows() > 3);
  front.require({"tokens_per_s_per_user", "tokens_per_s_per_gpu", "ttft_ms", "tpot_ms"});
  CHECK(run_drydock({"estimate", "--plan", dir + "/plan.json", "--method", "guess"}).err ==
        "drydock: --method 'guess': want one of simulate, analytic\n");
  // estimate says of the plan what the search said.
  const core::Json plan = core::read_json(dir + "/plan.json"),
                   again = json_of({"estimate", "--plan", dir + "/plan.json", "--json"});
  CHECK(again["ttft_ms"]["value"].get<double>() ==
        doctest::Approx(plan["prediction"]["ttft_ms"]["value"].get<double>()));
  // Closed forms know no percentile and see another queue, over the same step times.
  const core::Json closed = json_of({"estimate", "--plan", dir + "/plan.json", "--json", "--method", "analytic"});
  CHECK(again.contains("tail"));
  CHECK_FALSE(closed.contains("tail"));
  CHECK(closed["ttft_ms"]["value"] != again["ttft_ms"]["value"]);
  CHECK(closed["breakdown"] == again["breakdown"]);
  const core::Json lighter = json_of(
      {"estimate", "--plan", dir + "/plan.json", "--json", "--concurrency", "1", "--isl", "500", "--osl", "50"});
  CHECK(lighter["ttft_ms"]["value"] < again["ttft_ms"]["value"]);
}

TEST_CASE("times take units, and the page for people fits 100 columns") {
  const core::Json ms = json_of(question({"--json"}));
  Arguments in_seconds = question({"--json"});
  *std::find(in_seconds.begin(), in_seconds.end(), "1000") = "4000";  // --isl stays first
  in_seconds = {"recommend", "--model", "qwen3-32b", "--precision", "fp8",     "--system", "H200-SXM",
                "--gpus",    "16",      "--backend", "trtllm",      "--isl",   "4000",     "--osl",
                "1000",      "--ttft",  "1s",        "--tpot",      "20000us", "--json"};
  CHECK(json_of(in_seconds)["plans"][0]["ttft_ms"] == ms["plans"][0]["ttft_ms"]);
  const Run page = run_drydock(question());
  CHECK(page.exit_code == 0);
  size_t start = 0;
  while (start < page.out.size()) {
    const size_t end = std::min(page.out.find('\n', start), page.out.size());
    CHECK(end - start <= 100);
    start = end + 1;
  }
}

TEST_CASE("speculation and expert slots go into the plan, and replace a plan's own") {
  const Scratch scratch;
  const std::string dir = scratch / "o";
  const core::Json asked = json_of({"recommend",
                                    "--model",
                                    "Qwen/Qwen3-30B-A3B",
                                    "--system",
                                    "h200_sxm",
                                    "--gpus",
                                    "4",
                                    "--backend",
                                    "vllm",
                                    "--mode",
                                    "agg",
                                    "--isl",
                                    "500",
                                    "--osl",
                                    "200",
                                    "--concurrency",
                                    "16",
                                    "--speculative",
                                    "eagle:k=3,p=0.8",
                                    "--out",
                                    dir,
                                    "--json"});
  CHECK(asked["question"]["speculative"] == "eagle:k=3,p=0.8");
  CHECK(!std::filesystem::exists(dir + "/expert_placement.json"));
  core::Json plan = core::read_json(dir + "/plan.json");
  CHECK(plan["speculative"] == "eagle:k=3,p=0.8");
  plan["pools"][0].update({{"tp", 4}, {"pp", 1}, {"attention_dp", 1}, {"ep", 4}, {"moe_tp", 1}, {"replicas", 1}});
  const std::string file = scratch.write("p.json", plan.dump());
  const auto estimate = [&](Arguments more) {
    more.insert(more.begin(), {"estimate", "--plan", file, "--json"});
    return json_of(more);
  };
  const auto tpot = [](const core::Json& json) { return json["tpot_ms"]["value"].get<double>(); };
  const core::Json even = estimate({}), skew = estimate({"--expert-skew", "1"}),
                   placed = estimate({"--expert-skew", "1", "--expert-slots", "144", "--out", scratch / "e"});
  CHECK(!even["breakdown"][0].contains("experts"));
  const core::Json& balance = placed["breakdown"][0]["experts"];
  CHECK(balance["slots"] == 144);
  CHECK(balance["imbalance_before"] == skew["breakdown"][0]["experts"]["imbalance_after"]);
  CHECK(balance["imbalance_after"] < balance["imbalance_before"]);
  CHECK(tpot(even) < tpot(skew));
  CHECK(tpot(placed) < tpot(skew));
  CHECK(tpot(estimate({"--speculative", "eagle:k=3,p=0"})) > tpot(even));
  const std::string placement = core::read_file(scratch / "e/expert_placement.json");
  CHECK(core::parse_json(placement, "placement")["layers"][0].size() == 144);
  CHECK(core::read_json(scratch / "e/plan.json")["experts"]["slots"] == 144);
  const core::Json drifted =
      json_of({"experts", "--plan", scratch / "e/plan.json", "--steps", "50", "--json"})["pools"][0];
  CHECK(drifted["slots"] == 144);
  CHECK(drifted["fixed"]["imbalance"] < drifted["contiguous"]["imbalance"]);
  CHECK(drifted["fixed"]["step_us"] < drifted["contiguous"]["step_us"]);
  // The plan that was written says the same again, without flags.
  CHECK(tpot(json_of({"estimate", "--plan", scratch / "e/plan.json", "--json", "--out", scratch / "f"})) ==
        doctest::Approx(tpot(placed)));
  CHECK(core::read_file(scratch / "f/expert_placement.json") == placement);
  const auto simulated = [&](Arguments more) {
    more.insert(more.begin(), {"simulate", "--plan", file, "--requests", "50", "--json"});
    return json_of(more)["tpot_ms"]["mean"].get<double>();
  };
  CHECK(simulated({"--speculative", "eagle:k=3,p=1"}) < simulated({}));
}

TEST_CASE("bad speculation and expert flags are one line") {
  const auto error = [](const Arguments& more) {
    const Run run = run_drydock(question(more));
    CHECK(run.exit_code == 2);
    CHECK(lines(run.err) == 1);
    return run.err;
  };
  CHECK(error({"--speculative", "mtp:k=1,p=0.5"}).find("--speculative: Qwen/Qwen3-32B has no layers") !=
        std::string::npos);
  CHECK(error({"--speculative", "eagle"}).find("--speculative: speculation 'eagle'") != std::string::npos);
  CHECK(error({"--expert-skew", "-1"}).find("--expert-skew '-1'") != std::string::npos);
  CHECK(error({"--expert-skew", "1"}).find("--expert-skew: Qwen/Qwen3-32B has no experts") != std::string::npos);
  CHECK(error({"--expert-slots", "8"}).find("--expert-slots: goes with") != std::string::npos);
  const Scratch scratch;
  REQUIRE(run_drydock({"recommend", "--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--gpus", "1", "--backend",
                       "vllm", "--isl", "100", "--osl", "10", "--mode", "agg", "--out", scratch / "o"})
              .exit_code == 0);
  core::Json plan = core::read_json(scratch / "o/plan.json");
  plan["speculative"] = "mtp:k=0";
  const Run run = run_drydock({"estimate", "--plan", scratch.write("p.json", plan.dump())});
  CHECK(run.exit_code == 2);
  CHECK(run.err.find("p.json: field 'speculative': ") != std::string::npos);
  CHECK(lines(run.err) == 1);
}

TEST_CASE("nothing meets the targets: exit 3, the nearest plans, and which target binds") {
  const core::Json json =
      json_of({"recommend", "--model", "Qwen/Qwen3-32B", "--system", "h200_sxm", "--gpus", "4", "--backend", "vllm",
               "--isl", "4000", "--osl", "1000", "--ttft", "1000", "--tpot", "0.5", "--json"},
              3);
  CHECK(json["plans"].empty());
  REQUIRE(!json["nearest"].empty());
  CHECK(json["nearest"][0]["binding"]["target"] == "tpot");
  const Scratch scratch;
  CHECK(run_drydock({"recommend", "--model", "Qwen/Qwen3-32B", "--system", "h200_sxm", "--gpus", "4", "--isl", "4000",
                     "--osl", "1000", "--tpot", "0.5", "--out", scratch / "o"})
            .exit_code == 3);
  CHECK(!std::filesystem::exists(scratch / "o"));
}

TEST_CASE("answers of one token have figures, and the plan reads back") {
  const Scratch scratch;
  REQUIRE(run_drydock({"recommend", "--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--gpus", "1", "--backend",
                       "vllm", "--isl", "100", "--osl", "1", "--mode", "agg", "--out", scratch / "o"})
              .exit_code == 0);
  CHECK(is_figure(json_of({"estimate", "--plan", scratch / "o/plan.json", "--json"})["tpot_ms"]));
}

TEST_CASE("a plan that does not fit is refused, with what is in the way") {
  const Scratch scratch;
  REQUIRE(run_drydock({"recommend", "--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--gpus", "1", "--backend",
                       "vllm", "--isl", "100", "--osl", "10", "--mode", "agg", "--out", scratch / "o"})
              .exit_code == 0);
  std::string text = core::read_file(scratch / "o/plan.json");
  text.replace(text.find("Qwen/Qwen3-8B"), 13, "Llama-3.1-405B");
  const Run run = run_drydock({"estimate", "--plan", scratch.write("big.json", text)});
  CHECK(run.exit_code == 2);
  CHECK(run.err.find("is out of memory") != std::string::npos);
  CHECK(lines(run.err) == 1);
}

TEST_CASE("size finds the fewest GPUs for a rate") {
  const auto size = [&](const char* rate) {
    return json_of({"size",     "--model",  "Qwen/Qwen3-32B", "--precision", "fp8",
                    "--system", "h200_sxm", "--backend",      "trtllm",      "--isl",
                    "4000",     "--osl",    "1000",           "--ttft",      "2s",
                    "--tpot",   "30",       "--rate",         rate,          "--json"});
  };
  const core::Json few = size("2"), many = size("12");
  CHECK(few["schema"] == "drydock.size");
  CHECK(few["plans"][0]["gpus"] < many["plans"][0]["gpus"]);
}

TEST_CASE("points are predicted, columns kept, and validated") {
  const Scratch scratch;
  const std::string points = scratch.write(
      "p.csv",
      "\xEF\xBB\xBFmode,model,system,backend,precision,isl,osl,concurrency,tp_size,note,ttft_ms,tpot_ms\r\n"
      "agg,meta-llama/Llama-3.1-70B,h200_sxm,vllm,fp8,1024,1024,16,4,\"a, b\",150,14\r\n"
      "agg,no-such-model,h200_sxm,vllm,fp8,1024,1024,16,4,,150,14\r\n");
  const std::string out = scratch / "out.csv";
  CHECK(run_drydock({"estimate", "--points", points, "--out", out}).exit_code == 0);
  const core::Csv csv = core::Csv::read(out);
  REQUIRE(csv.rows() == 2);
  CHECK(csv.columns()[9] == "note");
  CHECK(csv.cell(0, 9) == "a, b");
  CHECK(csv.columns()[12] == "predicted_ttft_ms");
  CHECK(csv.columns().back() == "error");
  CHECK(*csv.number(0, csv.column("predicted_tpot_ms"), 1, 100) > 5);
  CHECK(csv.cell(1, csv.column("predicted_tpot_ms")) == "");
  CHECK(csv.cell(1, csv.column("error")).find("no-such-model") != std::string::npos);
  const core::Json v = json_of({"validate", "--points", points, "--json"});
  CHECK(v["all"]["rows"] == 2);
  CHECK(v["all"]["predicted"] == 1);
  CHECK(v["groups"].contains("model=meta-llama/Llama-3.1-70B"));
}

TEST_CASE("a database goes in and out, joins another, and answers exactly for what was measured") {
  const Scratch scratch;
  const std::string csv = scratch.write(
      "m.csv",
      "system,backend,version,op,latency_us,source\nh200_sxm,trtllm,9,\"gemm/fp8/m=64,n=4096,k=4096\",12.5,me\n");
  const std::string db = scratch / "x.db";
  CHECK(json_of({"db", "import", "--csv", csv, "--db", db, "--json"})["rows"] == 1);
  CHECK(json_of({"db", "info", "--db", db, "--json"})["contents"][0]["measurements"] == 1);
  const core::Json q = json_of({"db", "query", "--db", db, "--system", "h200_sxm", "--backend", "trtllm", "--op",
                                "gemm/fp8/m=64,n=4096,k=4096", "--json"});
  CHECK(q["measurements"][0]["latency_us"] == 12.5);
  CHECK(q["lookup"]["latency_us"] == 12.5);
  CHECK(q["lookup"]["provenance"] == "measured");
  CHECK(json_of({"db", "export", "--db", db, "--out", scratch / "o.csv", "--json"})["rows"] == 1);
  CHECK(json_of({"db", "merge", "--db", scratch / "y.db", "--from", db, "--json"})["rows"] == 1);
  const core::Json shipped = json_of(
      {"db", "query", "--system", "h200_sxm", "--backend", "trtllm", "--op", "gemm/fp8/m=64,n=4096,k=4096", "--json"});
  CHECK(shipped["lookup"]["provenance"] == "interpolated");
}

TEST_CASE("what is known is listed for people and for scripts") {
  for (const char* command : {"models", "systems", "support"}) {
    CHECK(json_of({command, "--json"})[command].size() >= 14);
    CHECK(lines(run_drydock({command}).out) > 14);
  }
}

TEST_CASE("every command has help with an example, and the program a version") {
  for (const Arguments& command : std::vector<Arguments>{{},
                                                         {"recommend"},
                                                         {"size"},
                                                         {"estimate"},
                                                         {"validate"},
                                                         {"models"},
                                                         {"systems"},
                                                         {"support"},
                                                         {"db", "info"},
                                                         {"db", "query"},
                                                         {"db", "import"},
                                                         {"db", "export"},
                                                         {"db", "merge"}}) {
    Arguments all = command;
    all.push_back("--help");
    const Run run = run_drydock(all);
    CHECK(run.exit_code == 0);
    CHECK(run.out.find("Example") != std::string::npos);
    CHECK(run.out.find("drydock ") != std::string::npos);
  }
  CHECK(run_drydock({"--version"}).out == "0.1.0\n");
}

TEST_CASE("a system and a model of the user's own") {
  const Scratch scratch;
  const std::string system = scratch.write(
      "my.json",
      R"({"name": "my_gpu", "architecture": "hopper", "sm_version": 90, "sms": 100, "memory_bytes": 1e11, "memory_bytes_per_s": 3e12,
    "flops_per_s": {"bf16": 5e14, "fp8": 1e15}, "pcie_bytes_per_s": 3e10, "network_bytes_per_s": 1e10, "gpus_per_node": 8, "price_per_gpu_hour": 1.5})");
  const core::Json json = json_of({"recommend", "--model", "Qwen/Qwen3-8B", "--system", system, "--gpus", "2",
                                   "--backend", "vllm", "--isl", "1000", "--osl", "100", "--json"});
  CHECK(is_figure(json["plans"][0]["cost_per_million_tokens"]));
  CHECK(json["breakdown"][0]["borrowed_from"] != "");  // no tables of its own
}
