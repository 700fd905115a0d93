#include <doctest/doctest.h>

#include <filesystem>
#include <set>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "core/file.h"
#include "tests/run.h"

using namespace drydock::tests;
namespace fs = std::filesystem;

namespace {

nlohmann::json plain(const fs::path& file) { return nlohmann::json::parse(drydock::core::read_file(file)); }

// Empty when the document is as the schema of docs/schema says, else what is wrong first.
std::string breach(const nlohmann::json& document, const char* schema_file) {
  const nlohmann::json schema_json = plain(fs::path(DRYDOCK_SOURCE_DIR) / "docs/schema" / schema_file);
  valijson::Schema schema;
  valijson::SchemaParser(valijson::SchemaParser::kDraft7)
      .populateSchema(valijson::adapters::NlohmannJsonAdapter(schema_json), schema);
  valijson::ValidationResults results;
  if (valijson::Validator().validate(schema, valijson::adapters::NlohmannJsonAdapter(document), &results)) return "";
  valijson::ValidationResults::Error error;
  results.popError(error);
  return error.description.empty() ? "not valid" : error.description;
}

}  // namespace

TEST_CASE("every file that recommend writes is as its schema says") {
  for (const std::vector<std::string>& question : std::vector<std::vector<std::string>>{
           {"--model", "Qwen/Qwen3-32B", "--system", "h200_sxm", "--gpus", "16", "--isl", "4000", "--osl", "1000",
            "--ttft", "2s", "--tpot", "30"},
           {"--model", "gpt-oss-120b", "--system", "b200_sxm", "--gpus", "8", "--isl", "1000", "--osl", "1000",
            "--rate", "5", "--mode", "disagg"},
           {"--model", "deepseek-ai/DeepSeek-R1", "--system", "gb200", "--gpus", "16", "--isl", "2000", "--osl", "500",
            "--concurrency", "64", "--price", "5", "--request-latency", "60s"}}) {
    const Scratch scratch;
    std::vector<std::string> arguments = {"recommend", "--out", scratch / "o"};
    arguments.insert(arguments.end(), question.begin(), question.end());
    const Run run = run_drydock(arguments);
    CAPTURE(run.err);
    REQUIRE(run.exit_code == 0);
    CHECK(breach(plain(scratch / "o/plan.json"), "plan.schema.json") == "");
    CHECK(breach(plain(scratch / "o/runtime.json"), "runtime.schema.json") == "");
    int plans = 0;
    for (const auto& entry : fs::directory_iterator(scratch / "o/plans")) {
      CHECK(breach(plain(entry.path()), "plan.schema.json") == "");
      ++plans;
    }
    CHECK(plans >= 1);
  }
}

TEST_CASE("a manifest of generated files is as its schema says") {
  const Scratch scratch;
  const std::string plan = DRYDOCK_SOURCE_DIR "/tests/data/generate/plan.json";
  REQUIRE(run_drydock(
              {"generate", "--plan", plan, "--target", "vllm,bench", "--out", scratch / "o", "--set", "served-name=x"})
              .exit_code == 0);
  nlohmann::json manifest = plain(scratch / "o/manifest.json");
  CHECK(breach(manifest, "files.schema.json") == "");
  manifest["files"][0]["size"] = 1;
  CHECK(breach(manifest, "files.schema.json") != "");
}

TEST_CASE("what profile tells is as its schema says") {
  const Scratch scratch;
  const std::string model = scratch.write(
      "model.json",
      R"({"model_type":"llama","hidden_size":64,"vocab_size":1000,"num_hidden_layers":2,"num_attention_heads":4,)"
      R"("max_position_embeddings":4096,"num_key_value_heads":2,"intermediate_size":128})");
  for (const std::vector<std::string>& more : std::vector<std::vector<std::string>>{
           {"--json"}, {"--json", "--fault", "gemm=oom"}, {"--json", "--fault", "decode=lost"}}) {
    const bool lost = more.back() == "decode=lost";
    std::vector<std::string> arguments = {
        "profile",  "--model",  model,      "--target", "simulated",
        "--system", "h200_sxm", "--budget", "20s",      "--target-error",
        "45%",      "--tp",     "1,2,3",    "--db",     scratch / (more.back() + ".db")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Run run = run_drydock(arguments);
    CAPTURE(run.err);
    REQUIRE(run.exit_code == (lost ? 2 : 0));
    nlohmann::json told = nlohmann::json::parse(run.out);
    CHECK((told["ending"] == "device_lost") == lost);
    CHECK(breach(told, "profile.schema.json") == "");
    CHECK(told["failed"].empty() == (more.size() == 1));
    told["families"][0].erase("error");
    CHECK(breach(told, "profile.schema.json") != "");
  }
}

TEST_CASE("every JSON answer is as its schema says, and one without a field is not") {
  const Scratch scratch;
  const std::vector<std::string> ask = {"--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--backend",
                                        "vllm",    "--isl",         "500",      "--osl",    "50"};
  const auto asked = [&](std::vector<std::string> arguments, const std::vector<std::string>& more) {
    arguments.insert(arguments.end(), ask.begin(), ask.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  REQUIRE(run_drydock(asked({"recommend"}, {"--gpus", "1", "--rate", "2", "--tpot", "30", "--out", scratch / "o"}))
              .exit_code == 0);
  const std::string plan = scratch / "o/plan.json";
  std::string points = "mode,model,system,backend,isl,osl,concurrency,tp_size,ttft_ms,tpot_ms\n";
  for (const char* measured : {"8,1,60,9", "16,1,80,10", "32,1,120,12", "64,1,200,15"})
    points += std::string("agg,Qwen/Qwen3-8B,h100_sxm,vllm,1000,100,") + measured + "\n";
  const std::string csv = scratch.write("points.csv", points);
  nlohmann::json mixture = plain(plan);
  mixture["model"] = "Qwen/Qwen3-30B-A3B";
  mixture["pools"][0].update({{"tp", 4}, {"ep", 4}});
  const std::string experts = scratch.write("mixture.json", mixture.dump());
  const std::string measured =
      scratch.write("measured.csv", "system,backend,op,latency_us\nh200_sxm,vllm,\"gemm/fp8/m=64,n=64,k=64\",8.5\n");
  struct Case {
    std::vector<std::string> arguments;
    const char *schema, *needed;
    int exit_code = 0;
  };
  for (const Case& c : std::vector<Case>{
           {asked({"recommend"}, {"--gpus", "2", "--mode", "disagg", "--tpot", "30", "--price", "2"}), "recommend",
            "searched"},
           {asked({"recommend"}, {"--gpus", "1", "--tpot", "0.01"}), "recommend", "nearest", 3},
           {asked({"size"}, {"--gpus", "2", "--concurrency", "8"}), "recommend", "breakdown"},
           {{"estimate", "--plan", plan}, "estimate", "workload"},
           {{"simulate", "--plan", plan, "--requests", "200"}, "simulate", "good_share"},
           {{"simulate", "--plan", plan, "--requests", "200", "--fail", "worker/0@3s"}, "simulate", "lost"},
           {{"compare", "--plans", plan, plan, "--requests", "100"}, "compare", "plans"},
           {{"validate", "--points", csv}, "validate", "regret"},
           {{"calibrate", "--points", csv, "--out", scratch / "c.json"}, "calibrate", "figures"},
           {{"models"}, "models", "models"},
           {{"systems"}, "systems", "systems"},
           {{"support"}, "support", "support"},
           {{"experts", "--plan", experts, "--expert-skew", "1", "--expert-slots", "144", "--steps", "20"},
            "experts",
            "pools"},
           {{"estimate", "--points", csv, "--out", scratch / "p.csv"}, "points", "predicted"},
           {{"validate", "--points", csv, "--out", scratch / "v.csv"}, "validate", "regret"},
           {{"plot", scratch / "v.csv", "--out", scratch / "v.html"}, "plot", "figures"},
           {{"simulate", "--plan", plan, "--requests", "50", "--out", scratch / "run"}, "simulate", "lost"},
           {{"plot", scratch / "run/requests.csv", "--out", scratch / "r.html"}, "plot", "curves"},
           {{"plot", scratch / "run/timeline.csv", "--out", scratch / "t.html"}, "plot", "pools"},
           {{"generate", "--list"}, "generate", "targets"},
           {{"generate", "--plan", plan, "--target", "drydock", "--out", scratch / "g"}, "generate", "files"},
           {{"generate", "--plan", plan, "--check", scratch / "g"}, "generate", "drift"},
           {{"db", "import", "--csv", measured, "--db", scratch / "m.db"}, "db_rows", "rows"},
           {{"db", "merge", "--from", scratch / "m.db", "--db", scratch / "n.db"}, "db_rows", "db"},
           {{"db", "export", "--db", scratch / "m.db", "--out", scratch / "m.csv"}, "db_rows", "out"},
           {{"db", "query", "--system", "h200_sxm", "--backend", "vllm", "--op", "gemm/fp8/m=64,n=64,k=64", "--db",
             scratch / "m.db"},
            "db_query",
            "measurements"},
           {{"db", "info"}, "db_info", "contents"}}) {
    std::vector<std::string> arguments = c.arguments;
    arguments.push_back("--json");
    const Run run = run_drydock(arguments);
    CAPTURE(run.err);
    CAPTURE(c.schema);
    REQUIRE(run.exit_code == c.exit_code);
    const std::string file = std::string(c.schema) + ".schema.json";
    nlohmann::json told = nlohmann::json::parse(run.out);
    CHECK(breach(told, file.c_str()) == "");
    told.erase(c.needed);
    CHECK(breach(told, file.c_str()) != "");
  }
}

TEST_CASE("what sweep and fleet tell is as their schemas say") {
  const Scratch scratch;
  const std::string sweep = scratch.write(
      "sweep.yaml",
      "models: Qwen/Qwen3-8B\nsystems: [h100_sxm, {prefill: h100_sxm, decode: l40s}]\nbackend: vllm\ngpus: 2\nmethod: "
      "analytic\n"
      "workloads: [{isl: 500, osl: 50, rate: 1}, {isl: 30000, osl: 20000}]\nslos: [{tpot: 30ms}, {ttft: 1us}]\n");
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"sweep", sweep, "--out", scratch / "o", "--json"},
           {"sweep", sweep, "--out", scratch / "s", "--shard", "1/2", "--json"},
           {"sweep", "--merge", scratch / "s", "--json"},
           {"sweep", sweep, "--write-jobs", "slurm", "--shards", "2", "--out", scratch / "j", "--json"}}) {
    const Run run = run_drydock(arguments);
    CAPTURE(run.err);
    REQUIRE(run.exit_code == 0);
    CHECK(breach(nlohmann::json::parse(run.out), "sweep_run.schema.json") == "");
  }
  nlohmann::json told = nlohmann::json::parse(run_drydock({"sweep", "--show", scratch / "o", "--json"}).out);
  CHECK(breach(told, "sweep.schema.json") == "");
  std::set<std::string> seen;
  for (const auto& item : told["items"]) {
    seen.insert(item["status"].get<std::string>());
    if (item.contains("plan")) CHECK(breach(item["plan"], "plan.schema.json") == "");
  }
  CHECK(seen == std::set<std::string>{"met", "missed", "refused"});
  told["items"][0]["status"] = "won";
  CHECK(breach(told, "sweep.schema.json") != "");

  const std::string stock =
      "stock: [{system: l40s, gpus: GPUS, price: 1}]\nmode: agg\nmodels: [{model: Qwen/Qwen3-8B, ";
  const std::string load = "precision: fp8, backend: vllm, isl: 1000, osl: 100, rate: 20, tpot: TARGET}]\n";
  struct Case {
    const char *gpus, *target;
    int exit_code;
  };
  for (const Case& c : {Case{"8", "60ms", 0}, Case{"1", "60ms", 3}, Case{"8", "1us", 3}}) {
    std::string text = stock + load;
    text.replace(text.find("GPUS"), 4, c.gpus);
    text.replace(text.find("TARGET"), 6, c.target);
    const Run run = run_drydock({"fleet", scratch.write("fleet.yaml", text), "--json"});
    CAPTURE(run.err);
    REQUIRE(run.exit_code == c.exit_code);
    nlohmann::json fleet = nlohmann::json::parse(run.out);
    CHECK(breach(fleet, "fleet.schema.json") == "");
    fleet.erase("stock");
    CHECK(breach(fleet, "fleet.schema.json") != "");
  }
}

TEST_CASE("the schemas refuse what is not theirs") {
  const Scratch scratch;
  REQUIRE(run_drydock({"recommend", "--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--gpus", "1", "--isl", "100",
                       "--osl", "10", "--backend", "vllm", "--out", scratch / "o"})
              .exit_code == 0);
  nlohmann::json plan = plain(scratch / "o/plan.json");
  plan["pools"][0]["tp"] = 0;
  CHECK(breach(plan, "plan.schema.json") != "");
  nlohmann::json runtime = plain(scratch / "o/runtime.json");
  runtime["extra"] = 1;
  CHECK(breach(runtime, "runtime.schema.json") != "");
  runtime = plain(scratch / "o/runtime.json");
  runtime["workers"][0].erase("max_batch");
  CHECK(breach(runtime, "runtime.schema.json") != "");
}
