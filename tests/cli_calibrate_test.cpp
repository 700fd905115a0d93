#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::tests;

namespace {

const char kHeader[] = "mode,model,system,backend,precision,isl,osl,concurrency,batch_size,tp_size,ttft_ms,tpot_ms\n";
const char kRows[] =
    "agg,Qwen/Qwen3-32B,h200_sxm,trtllm,fp8,2000,200,4,4,2,160,9\n"
    "agg,Qwen/Qwen3-32B,h200_sxm,trtllm,fp8,2000,200,16,16,2,260,13\n"
    "agg,Qwen/Qwen3-32B,h200_sxm,trtllm,fp8,2000,200,64,64,2,700,29\n";

nlohmann::json json_of(const Run& run) {
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  return nlohmann::json::parse(run.out);
}

}  // namespace

TEST_CASE("calibrate writes figures that other commands take, and tells the error to expect") {
  Scratch scratch;
  const std::string points = scratch.write("p.csv", std::string(kHeader) + kRows), out = scratch / "c.json";
  const auto told = json_of(run_drydock({"calibrate", "--points", points, "--out", out, "--json"}));
  CHECK(told["points"] == 3);
  CHECK(told["refused"].empty());
  CHECK(told["figures"].size() == 4);
  CHECK(told["after"]["tpot"]["mape"].get<double>() <= told["before"]["tpot"]["mape"].get<double>() + 1e-9);
  CHECK(told["left_out"]["ttft"]["mape"].get<double>() > 0);
  const auto before = json_of(run_drydock({"validate", "--points", points, "--json"}));
  const auto after = json_of(run_drydock({"validate", "--points", points, "--calibration", out, "--json"}));
  CHECK(before["all"]["tpot"]["mape"].get<double>() == doctest::Approx(told["before"]["tpot"]["mape"].get<double>()));
  CHECK(after["all"]["tpot"]["mape"].get<double>() ==
        doctest::Approx(told["after"]["tpot"]["mape"].get<double>()).epsilon(1e-3));
  // The same points, the same bytes.
  const std::string again = scratch / "d.json";
  run_drydock({"calibrate", "--points", points, "--out", again});
  CHECK(core::read_file(out) == core::read_file(again));
}

TEST_CASE("a point faster than memory is refused by name, and alone there is nothing to fit") {
  Scratch scratch;
  const std::string wild = "agg,Qwen/Qwen3-32B,h200_sxm,trtllm,fp8,2000,200,4,4,2,100,0.9\n";
  const std::string points = scratch.write("p.csv", std::string(kHeader) + kRows + wild), out = scratch / "c.json";
  const auto told = json_of(run_drydock({"calibrate", "--points", points, "--out", out, "--json"}));
  REQUIRE(told["refused"].size() == 1);
  CHECK(told["refused"][0]["line"] == 5);
  const Run page = run_drydock({"calibrate", "--points", points, "--out", out});
  CHECK(page.out.find("line 5 is not physical") != std::string::npos);
  const Run none =
      run_drydock({"calibrate", "--points", scratch.write("w.csv", kHeader + wild), "--out", scratch / "n.json"});
  CHECK(none.exit_code == 2);
  CHECK(lines(none.err) == 1);
  CHECK(none.err.find("no point is physical; line 2") != std::string::npos);
  CHECK(!std::filesystem::exists(scratch / "n.json"));
}

TEST_CASE("what calibrate can't use is told in a line") {
  Scratch scratch;
  const std::string points = scratch.write("p.csv", std::string(kHeader) + kRows), out = scratch / "c.json";
  const auto refused = [&](std::vector<std::string> arguments, const std::string& names) {
    arguments.insert(arguments.begin(), "calibrate");
    const Run run = run_drydock(arguments);
    CAPTURE(run.err);
    CHECK(run.exit_code == 2);
    CHECK(lines(run.err) == 1);
    CHECK(run.err.find(names) != std::string::npos);
    CHECK(!std::filesystem::exists(out));
  };
  refused({"--out", out}, "--points is missing");
  refused({"--points", points}, "--out is missing");
  refused({"--points", points, "--out", out, "--leave-out", "month"}, "--leave-out 'month'");
  refused({"--points", scratch.write("e.csv", kHeader), "--out", out}, "no row to calibrate on");
  refused({"--points",
           scratch.write("z.csv", std::string(kHeader) + "agg,Qwen/Qwen3-32B,h200_sxm,trtllm,fp8,20,20,4,4,2,0,9\n"),
           "--out", out},
          "line 2: ttft_ms and tpot_ms must be above 0");
}

TEST_CASE("recommend holds targets at a percentile, or in the mean") {
  const std::vector<std::string> question = {
      "recommend", "--model", "Qwen/Qwen3-8B", "--system",  "h100_sxm", "--gpus", "2",  "--isl",
      "500",       "--osl",   "100",           "--backend", "vllm",     "--tpot", "20", "--json"};
  auto with = question;
  const auto tail = json_of(run_drydock(question));
  CHECK(tail["question"]["percentile"] == 95);
  const auto& first = tail["plans"][0];
  CHECK(first["tail"]["tpot_ms"]["value"].get<double>() <= 20);
  CHECK(first["tail"]["tpot_ms"]["value"].get<double>() >= first["tpot_ms"]["value"].get<double>());
  with.insert(with.end(), {"--percentile", "mean"});
  const auto mean = json_of(run_drydock(with));
  CHECK(!mean["plans"][0].contains("tail"));
  CHECK(mean["plans"][0]["tokens_per_s_per_gpu"]["value"].get<double>() >=
        first["tokens_per_s_per_gpu"]["value"].get<double>());
  with.back() = "p101";
  CHECK(run_drydock(with).err.find("--percentile 'p101': want mean, or p50 to p99.9") != std::string::npos);
}

TEST_CASE("simulating everything gives the list that pruning gives") {
  std::vector<std::string> question = {
      "recommend", "--model", "Qwen/Qwen3-32B", "--precision", "fp8",       "--system", "h200_sxm", "--gpus", "8",
      "--isl",     "1000",    "--osl",          "300",         "--backend", "sglang",   "--ttft",   "800",    "--tpot",
      "25",        "--json"};
  const auto pruned = json_of(run_drydock(question));
  question.push_back("--all");
  const auto all = json_of(run_drydock(question));
  CHECK(pruned["plans"] == all["plans"]);
  CHECK(pruned["searched"]["beaten"].get<int>() > 0);
  CHECK(all["searched"]["simulated"] == all["searched"]["priced"]);
}
