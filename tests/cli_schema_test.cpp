#include <doctest/doctest.h>

#include <filesystem>
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

TEST_CASE("what profile tells is as its schema says") {
  const Scratch scratch;
  const std::string model = scratch.write(
      "model.json",
      R"({"model_type":"llama","hidden_size":64,"vocab_size":1000,"num_hidden_layers":2,"num_attention_heads":4,)"
      R"("max_position_embeddings":4096,"num_key_value_heads":2,"intermediate_size":128})");
  for (const std::vector<std::string>& more :
       std::vector<std::vector<std::string>>{{"--json"}, {"--json", "--fault", "gemm=oom"}}) {
    std::vector<std::string> arguments = {
        "profile",  "--model",  model,      "--target", "simulated",
        "--system", "h200_sxm", "--budget", "20s",      "--target-error",
        "45%",      "--tp",     "1,2,3",    "--db",     scratch / (more.back() + ".db")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Run run = run_drydock(arguments);
    CAPTURE(run.err);
    REQUIRE(run.exit_code == 0);
    nlohmann::json told = nlohmann::json::parse(run.out);
    CHECK(breach(told, "profile.schema.json") == "");
    CHECK(told["failed"].empty() == (more.size() == 1));
    told["families"][0].erase("error");
    CHECK(breach(told, "profile.schema.json") != "");
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
