// What recommend, size and estimate tell where an answer is not the usual one.
#include <doctest/doctest.h>

#include <filesystem>

#include "core/file.h"
#include "core/json.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::tests;

namespace {

core::Json recommend_json(const std::vector<std::string>& arguments) {
  const Run run = run_drydock(arguments);
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  return core::parse_json(run.out, "stdout");
}

}  // namespace

TEST_CASE("a plan of an earlier run is left alone when nothing meets the targets, and the answer says so") {
  const Scratch scratch;
  std::vector<std::string> arguments = {"recommend",
                                        "--model",
                                        "Qwen/Qwen3-8B",
                                        "--system",
                                        "h100_sxm",
                                        "--gpus",
                                        "1",
                                        "--backend",
                                        "vllm",
                                        "--isl",
                                        "1000",
                                        "--osl",
                                        "100",
                                        "--method",
                                        "analytic",
                                        "--out",
                                        scratch / "o",
                                        "--report",
                                        scratch / "o/page.html"};
  const Run first = run_drydock(arguments);  // the page may lie in the folder that --out makes
  CAPTURE(first.err);
  REQUIRE(first.exit_code == 0);
  const std::string plan = core::read_file(scratch / "o/plan.json");
  arguments.insert(arguments.end(), {"--tpot", "1us"});
  const Run run = run_drydock(arguments);
  CHECK(run.exit_code == 3);
  CHECK(run.out.find("o/plan.json is of an earlier run and was left alone.") != std::string::npos);
  CHECK(run.out.find("TPOT <= 0.001 ms") != std::string::npos);
  CHECK(run.out.find("#1 is nearest to all targets, tpot; tpot binds") != std::string::npos);  // the same plan
  CHECK(core::read_file(scratch / "o/plan.json") == plan);
  arguments.emplace_back("--json");
  const Run scripted = run_drydock(arguments);
  CHECK(scripted.exit_code == 3);
  CHECK(core::parse_json(scripted.out, "stdout")["plans"].empty());
  CHECK(lines(scripted.err) == 1);
  CHECK(scripted.err.find("was left alone") != std::string::npos);
}

TEST_CASE("formats that a system does not compute in are told, for people and for scripts") {
  const std::vector<std::string> ask = {"recommend", "--model",   "Qwen/Qwen3-8B", "--system", "a100_sxm",
                                        "--gpus",    "1",         "--isl",         "1000",     "--osl",
                                        "100",       "--backend", "vllm",          "--method", "analytic"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), ask.begin(), ask.end());
    return more;
  };
  const core::Json fp8 = recommend_json(with({"--precision", "fp8", "--json"}));
  REQUIRE(fp8["warnings"].size() == 1);
  CHECK(fp8["warnings"][0].get<std::string>().starts_with("a100_sxm has no fp8 arithmetic"));
  CHECK(run_drydock(with({"--precision", "fp8"})).out.find("warning: a100_sxm has no fp8") != std::string::npos);
  CHECK(!recommend_json(with({"--precision", "bf16", "--json"})).contains("warnings"));
  CHECK(!recommend_json(with({"--precision", "int4", "--json"}))
             .contains("warnings"));  // weights alone, unpacked by design
}

TEST_CASE("estimate tells what a plan does, also where that misses its targets") {
  const Scratch scratch;
  REQUIRE(run_drydock({"recommend", "--model", "Qwen/Qwen3-32B", "--precision", "fp8", "--system", "h200_sxm", "--gpus",
                       "4", "--backend", "trtllm", "--isl", "4000", "--osl", "200", "--ttft", "500", "--out",
                       scratch / "o"})
              .exit_code == 0);
  // 16 users per GPU with prompts of 20,000 tokens: none is answered within half a second.
  const core::Json late = recommend_json(
      {"estimate", "--plan", scratch / "o/plan.json", "--isl", "20000", "--concurrency", "64", "--json"});
  CHECK(late["tail"]["ttft_ms"]["value"].get<double>() > 500);
  CHECK(late["requests_per_s"]["value"].get<double>() > 0);
  CHECK(run_drydock({"estimate", "--plan", scratch / "o/plan.json", "--rate", "0.0001"}).exit_code == 0);  // and soon
  CHECK(run_drydock({"estimate", "--plan", scratch / "o/plan.json", "--prefix-hit", "0.0"}).exit_code == 0);
}
