#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/csv.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/run.h"

using namespace drydock;
using tests::run_drydock;

namespace {

std::string plan_file() { return DRYDOCK_SOURCE_DIR "/tests/data/generate/plan.json"; }

std::string plan_with(const tests::Scratch& scratch, const std::string& name, const std::string& from,
                      const std::string& to) {
  std::string text = core::read_file(plan_file());
  REQUIRE(text.find(from) != std::string::npos);
  text.replace(text.find(from), from.size(), to);
  return scratch.write(name, text);
}

bool has_python() { return std::system("command -v python3 >/dev/null 2>&1") == 0; }

}  // namespace

TEST_CASE("recommend and size write a target's files beside the plan") {
  const tests::Scratch scratch;
  const std::string out = scratch / "deployment";
  const auto run =
      run_drydock({"recommend", "--model", "Qwen/Qwen3-8B", "--system", "h200_sxm", "--gpus", "2", "--isl", "1000",
                   "--osl", "200", "--tpot", "30", "--method", "analytic", "--out", out, "--target", "sglang,bench"});
  CHECK(run.err == "");
  REQUIRE(run.exit_code == 0);
  const core::Json plan = core::read_json(out + "/plan.json");
  CHECK(plan["backend"] == "sglang");  // as its files were asked for
  CHECK(std::filesystem::exists(out + "/bench/bench.sh"));
  CHECK(run_drydock({"generate", "--check", out, "--plan", out + "/plan.json"}).exit_code == 0);
  const auto missing = run_drydock({"recommend", "--model", "Qwen/Qwen3-8B", "--system", "h200_sxm", "--isl", "1000",
                                    "--osl", "200", "--target", "vllm"});
  CHECK(missing.exit_code == 2);
  CHECK(missing.err.find("--out is missing") != std::string::npos);
}

TEST_CASE("generate writes, keeps, checks") {
  const tests::Scratch scratch;
  const std::string out = scratch / "files";
  const auto run =
      run_drydock({"generate", "--plan", plan_file(), "--target", "vllm,slurm,drydock", "--out", out, "--json"});
  CHECK(run.err == "");
  REQUIRE(run.exit_code == 0);
  const core::Json json = core::parse_json(run.out, "stdout");
  CHECK(json["schema"] == "drydock.generate");
  for (const core::Json& file : json["files"])
    CHECK(std::filesystem::exists(out + "/" + file["path"].get<std::string>()));
  CHECK(run_drydock({"generate", "--check", out, "--plan", plan_file()}).exit_code == 0);

  const auto other = plan_with(scratch, "other.json", "\"max_batch\": 123", "\"max_batch\": 64");
  const auto drifted = run_drydock({"generate", "--check", out, "--plan", other, "--json"});
  CHECK(drifted.exit_code == 1);
  bool seen = false;
  const core::Json told = core::parse_json(drifted.out, "stdout");
  for (const core::Json& d : told["drift"])
    seen |=
        d["file"] == "vllm/decode.yaml" && d["where"] == "max-num-seqs" && d["expected"] == "64" && d["found"] == "123";
  CHECK(seen);
  const auto kept = run_drydock({"generate", "--plan", other, "--target", "vllm", "--out", out});
  CHECK(kept.exit_code == 2);
  CHECK(kept.err.find("--force replaces it") != std::string::npos);
  CHECK(tests::lines(kept.err) == 1);
  CHECK(run_drydock({"generate", "--plan", other, "--target", "vllm", "--out", out, "--force"}).exit_code == 0);
}

TEST_CASE("generate refuses what it can't do, in one line, and writes nothing") {
  const tests::Scratch scratch;
  const std::string out = scratch / "files";
  const auto refused = [&](std::vector<std::string> arguments, const std::string& why) {
    arguments.insert(arguments.begin(), "generate");
    const auto run = run_drydock(arguments);
    CAPTURE(run.err);
    CHECK(run.exit_code == 2);
    CHECK(run.out == "");
    CHECK(tests::lines(run.err) == 1);
    CHECK(run.err.find(why) != std::string::npos);
    CHECK(!std::filesystem::exists(out));
  };
  refused({"--plan", plan_file(), "--target", "kubernets", "--out", out}, "want one of drydock, vllm");
  refused({"--plan", plan_file(), "--target", "vllm", "--out", out, "--set", "model"}, "want key=value");
  refused({"--plan", plan_file(), "--target", "vllm", "--out", out, "--set", "servd-name=x"},
          "did you mean 'served-name'?");
  refused({"--plan", plan_file(), "--target", "vllm", "--out", out, "--set", "engine-version=0.1.0"},
          "were checked for 0.15.0 to 0.33.0");
  refused({"--plan", plan_file(), "--target", "trtllm", "--out", out}, "--backend trtllm");
  refused({"--plan", plan_file(), "--target", "vllm"}, "--out is missing");
  refused({"--plan", plan_file(), "--out", out}, "--target is missing");
  refused({"--target", "vllm", "--out", out}, "--plan is missing");
  refused({"--plan", plan_file(), "--check", scratch / "none"}, "none");
  refused(
      {"--plan", plan_with(scratch, "new.json", "\"version\": 1", "\"version\": 2"), "--target", "vllm", "--out", out},
      "newer than this program");
  const auto list = run_drydock({"generate", "--list", "--json"});
  CHECK(core::parse_json(list.out, "stdout")["targets"].size() >= 6);
}

TEST_CASE("a benchmark's result becomes a row that validate scores") {
  if (!has_python()) {
    MESSAGE("python3 is not installed: to_csv.py is not run");
    return;
  }
  const tests::Scratch scratch;
  // Names and values as the engines' clients write them: vLLM and TensorRT-LLM one object, SGLang one a line.
  const std::string vllm = scratch.write(
      "vllm.json",
      R"({"date": "20261101-120000", "endpoint_type": "openai", "backend": "openai", "label": null, "model_id": "Qwen/Qwen3-32B",
    "tokenizer_id": "Qwen/Qwen3-32B", "num_prompts": 1230, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 123, "duration": 201.3, "completed": 1230, "failed": 0,
    "total_input_tokens": 4920000, "total_output_tokens": 1230000, "request_throughput": 6.11, "request_goodput": null, "output_throughput": 6110.3, "total_token_throughput": 30551.5,
    "mean_ttft_ms": 652.31, "median_ttft_ms": 600.2, "std_ttft_ms": 120.5, "p99_ttft_ms": 1200.9, "mean_tpot_ms": 18.41, "median_tpot_ms": 18.2, "std_tpot_ms": 1.1, "p99_tpot_ms": 20.4,
    "mean_itl_ms": 18.4, "median_itl_ms": 18.1, "mean_e2el_ms": 19010.2, "median_e2el_ms": 19000.1})");
  const std::string sglang =
      scratch.write("sglang.jsonl",
                    "{\"tag\": null, \"backend\": \"sglang-oai\", \"dataset_name\": \"random-ids\", \"request_rate\": "
                    "Infinity, \"max_concurrency\": 64, \"duration\": 100.5, "
                    "\"completed\": 640, \"total_input_tokens\": 2560000, \"request_throughput\": 6.4, "
                    "\"output_throughput\": 6400.1, \"mean_e2e_latency_ms\": 10010.5, \"mean_ttft_ms\": 400.5, "
                    "\"mean_tpot_ms\": 9.7, \"mean_itl_ms\": 9.7}\n"
                    "{\"completed\": 640, \"request_throughput\": 6.5, \"mean_ttft_ms\": 390.5, \"mean_tpot_ms\": 9.5, "
                    "\"mean_e2e_latency_ms\": 9900.5}\n");
  const std::string out = scratch / "bench";
  REQUIRE(run_drydock({"generate", "--plan", plan_file(), "--target", "bench", "--out", out}).exit_code == 0);
  const auto to_csv = [&](const std::string& folder, const std::string& results, const std::string& csv) {
    return std::system(("cd '" + folder + "/bench' && python3 to_csv.py " + results + " > '" + csv + "' 2>/dev/null")
                           .c_str()) == 0;
  };
  const std::string csv = scratch / "measured.csv";
  REQUIRE(to_csv(out, vllm + " " + sglang, csv));
  const core::Csv rows = core::Csv::read(csv);
  REQUIRE(rows.rows() == 3);
  CHECK(rows.cell(0, *rows.find("ttft_ms")) == "652.31");
  CHECK(rows.cell(2, *rows.find("tpot_ms")) == "9.5");
  CHECK(rows.cell(0, *rows.find("isl")) == "4400");  // the longest: 1.1 x 4000
  CHECK(rows.cell(0, *rows.find("decode_batch_size")) == "123");
  const auto scored = run_drydock({"validate", "--points", csv, "--method", "analytic", "--json"});
  CAPTURE(scored.err);
  REQUIRE(scored.exit_code == 0);
  CHECK(core::parse_json(scored.out, "stdout")["all"]["predicted"] == 3);

  // Aggregated at a rate: what is in flight follows from Little's law, 6.11 x 19.0102 s = 116.
  std::string plan = core::read_file(plan_file());
  core::Json agg = core::parse_json(plan, "plan");
  agg["mode"] = "agg";
  agg["pools"] = core::Json::array({agg["pools"][1]});
  agg["pools"][0]["role"] = "worker";
  agg["pools"][0]["replicas"] = 2;
  agg["workload"]["rate"] = 6.1;
  agg.erase("prediction");
  const std::string agg_out = scratch / "agg";
  REQUIRE(
      run_drydock({"generate", "--plan", scratch.write("agg.json", agg.dump()), "--target", "bench", "--out", agg_out})
          .exit_code == 0);
  REQUIRE(to_csv(agg_out, vllm, csv));
  const core::Csv one = core::Csv::read(csv);
  CHECK(one.cell(0, *one.find("concurrency")) == "116");
  CHECK(one.cell(0, *one.find("batch_size")) == "58");  // two instances
  const auto agg_scored = run_drydock({"validate", "--points", csv, "--method", "analytic", "--json"});
  CHECK(core::parse_json(agg_scored.out, "stdout")["all"]["predicted"] == 1);

  CHECK(!to_csv(out, scratch.write("bad.json", "{\"completed\": 0}"), csv));
  CHECK(!to_csv(out, scratch.write("worse.json", "[]"), csv));
}
