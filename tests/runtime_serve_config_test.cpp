// runtime.json from strangers: refused in one line that names file and field, or read as it says.
#include <doctest/doctest.h>

#include "core/error.h"
#include "core/json.h"
#include "runtime/serve_config.h"

using namespace drydock;
using core::Json;

namespace {

Json served_worker(const std::string& role, int index) {
  return {{"name", role + "/" + std::to_string(index)},
          {"role", role},
          {"system", "h200_sxm"},
          {"gpus", 2},
          {"parallelism", {{"tp", 2}, {"pp", 1}, {"attention_dp", 1}, {"moe_tp", 1}, {"ep", 1}}},
          {"precision", "fp8"},
          {"kv_precision", "auto"},
          {"kv_block_tokens", 32},
          {"kv_blocks", 1000},
          {"max_batch", 8},
          {"max_tokens", 8192}};
}

Json served_file() {
  return {{"schema", "drydock.runtime"},
          {"version", 1},
          {"model", "Qwen/Qwen3-32B"},
          {"engine", "cpu"},
          {"scheduling", "sglang"},
          {"mode", "disagg"},
          {"router", {{"policy", "kv_aware"}}},
          {"slo", {{"tpot_ms", 20}}},
          {"workers", {served_worker("decode", 0), served_worker("prefill", 0), served_worker("decode", 1)}},
          {"workload", {{"isl", 500}, {"osl", 100}}},
          {"secret_env", "_My_SECRET_2"}};
}

// `why`: what the one line must say beside the file's name.
void refuses(const std::string& text, const std::string& why) {
  CAPTURE(text.substr(0, 300));
  std::string said;
  try {
    runtime::parse_serve_config(text, "runtime.json");
  } catch (const core::Error& error) {
    said = error.what();
  }
  CHECK(said.starts_with("runtime.json: "));
  CHECK(said.find('\n') == std::string::npos);
  CHECK(said.size() < 400);
  CHECK_MESSAGE(said.find(why) != std::string::npos, said);
}

// The file with another value at a place such as "/workers/0/gpus"; a null value takes the field out.
std::string served_with(const std::string& place, const Json& value) {
  Json file = served_file();
  const Json::json_pointer at(place);
  if (value.is_null())
    file[at.parent_pointer()].erase(at.back());
  else
    file[at] = value;
  return file.dump();
}

// The innermost field's name, as errors have it: "workers[1].parallelism.tp".
std::string field_of(const std::string& place) {
  std::string out;
  for (Json::json_pointer at(place); !at.empty(); at.pop_back()) {
    const std::string part = at.back();
    const bool number = std::isdigit(static_cast<unsigned char>(part[0]));
    out = (number ? "[" + part + "]" : "." + part) + out;
  }
  return "field '" + out.substr(1);
}

}  // namespace

TEST_CASE("a runtime.json is read as it says, whatever the order of its workers") {
  const runtime::ServeConfig config = runtime::parse_serve_config(served_file().dump(), "runtime.json");
  CHECK(config.engine == "cpu");
  CHECK(config.secret_env == "_My_SECRET_2");
  CHECK(config.plan.backend == models::Backend::sglang);
  CHECK(config.plan.precision == "fp8");
  REQUIRE(config.plan.pools.size() == 2);
  CHECK(config.plan.pools[0].role == models::Role::prefill);
  CHECK(config.plan.pools[1].replicas == 2);
  CHECK(config.plan.pools[1].gpus() == 4);
  CHECK(runtime::parse_serve_config(served_with("/secret_env", nullptr), "x").secret_env == "DRYDOCK_SECRET");
}

TEST_CASE("a field of a wrong type, missing or unknown is told by its name") {
  // Every field of the file, with the values that it can't have whatever it means.
  const std::vector<std::string> texts = {"/schema",
                                          "/model",
                                          "/engine",
                                          "/scheduling",
                                          "/mode",
                                          "/router/policy",
                                          "/workers/0/name",
                                          "/workers/0/role",
                                          "/workers/0/system",
                                          "/workers/0/precision",
                                          "/workers/1/kv_precision",
                                          "/secret_env",
                                          "/speculative"};
  const std::vector<std::string> wholes = {"/version",
                                           "/workload/isl",
                                           "/workload/osl",
                                           "/workers/0/gpus",
                                           "/workers/0/kv_block_tokens",
                                           "/workers/0/kv_blocks",
                                           "/workers/2/max_batch",
                                           "/workers/0/max_tokens",
                                           "/workers/1/parallelism/tp",
                                           "/workers/1/parallelism/ep"};
  const std::vector<std::string> objects = {"/router", "/workload", "/slo", "/workers/0/parallelism"};
  for (const std::string& place : texts)
    for (const Json& bad : {Json(1), Json(true), Json::array({"a"}), Json::object(), Json("a\nb"), Json("\x1b[2J"),
                            Json(std::string(5000, 'x'))})
      refuses(served_with(place, bad), field_of(place));
  for (const std::string& place : wholes)
    for (const Json& bad : {Json("1"), Json(1.5), Json(0.5e300), Json(-1), Json(INT64_MAX), Json(UINT64_MAX),
                            Json(true), Json::array({1}), Json::object()})
      refuses(served_with(place, bad), field_of(place));
  for (const std::string& place : objects)
    for (const Json& bad : {Json("a"), Json(1), Json::array()}) refuses(served_with(place, bad), "want a JSON object");
  for (const char* place : {"/model", "/engine", "/mode", "/workers", "/workload", "/router", "/workers/0/system",
                            "/workers/0/role", "/workers/0/kv_blocks", "/workload/isl"})
    refuses(served_with(place, nullptr), field_of(place) + "': missing");
  for (const char* place :
       {"/extra", "/router/x", "/slo/tpot", "/workload/x", "/workers/1/env", "/workers/0/parallelism/cp", "/__proto__"})
    refuses(served_with(place, 1), field_of(place) + "': not known here");
  refuses(served_with("/slo/tpot_ms", "fast"), "field 'slo.tpot_ms'");
  refuses(served_with("/slo/tpot_ms", -1), "field 'slo.tpot_ms'");
  refuses(served_with("/workers", 7), "field 'workers'");
  refuses(served_with("/workers/1", 7), "field 'workers[1]'");
}

TEST_CASE("what workers say of themselves must fit together") {
  refuses(served_with("/workers/0/gpus", 4), "field 'workers[0].gpus': want tp x pp x attention_dp, which is 2");
  refuses(served_with("/workers/2/precision", "bf16"), "field 'workers[2].precision': workers must have the same");
  refuses(served_with("/workers/2/kv_precision", "fp8"), "field 'workers[2].kv_precision'");
  refuses(served_with("/workers/2/max_batch", 9), "field 'workers[2].role': workers of one role must be equal");
  refuses(served_with("/workers/2/name", "decode/0"), "field 'workers[2].name': want 'decode/1'");
  refuses(served_with("/workers/2/name", "../../decode/1"), "field 'workers[2].name'");
  refuses(served_with("/workers/1", served_worker("worker", 0)), "field 'workers': mode disagg wants");
  refuses(served_with("/workers", Json::array()), "field 'workers': mode disagg wants");
  refuses(served_with("/mode", "agg"), "field 'workers': mode agg wants");
  refuses(served_with("/engine", "tpu"), "field 'engine'");
  refuses(served_with("/router/policy", "random"), "field 'router.policy': want round_robin");
  refuses(served_with("/scheduling", "tgi"), "field 'scheduling'");
  // 2^32 GPUs in one worker, and so many workers that all of them have as many: no product overflows.
  Json wide = served_worker("worker", 0);
  wide["parallelism"]["tp"] = wide["parallelism"]["pp"] = 65536;
  wide["gpus"] = 1;
  Json file = served_file();
  file["mode"] = "agg";
  file["workers"] = {wide};
  refuses(file.dump(), "field 'workers[0].parallelism.tp'");
  wide["parallelism"]["pp"] = 1, wide["gpus"] = 65536;
  file["workers"] = {wide, wide};
  file["workers"][1]["name"] = "worker/1";
  refuses(file.dump(), "field 'workers[1].role': all workers of a role together");
}

TEST_CASE("secret_env is the name of a variable and nothing else") {
  for (const char* bad : {"", "1SECRET", "A-B", "A B", "A=B", "LD_PRELOAD=/tmp/x.so", "$HOME", "../secret",
                          "/etc/passwd", "S\xC3\x89", "`id`", "A;B", "A.B"})
    refuses(served_with("/secret_env", bad), "field 'secret_env': want the name of an environment variable");
  refuses(served_with("/secret_env", std::string(65, 'A')), "1 to 64 letters");
  CHECK_NOTHROW(runtime::parse_serve_config(served_with("/secret_env", std::string(64, 'A')), "x"));
  CHECK_NOTHROW(runtime::parse_serve_config(served_with("/secret_env", "_"), "x"));
}

TEST_CASE("what is no JSON, too deep, twice or too much is refused as a whole") {
  const std::string good = served_file().dump();
  for (size_t length = 0; length < good.size(); length += 7) refuses(good.substr(0, length), "not JSON");
  refuses(good + "{}", "not JSON");
  refuses("\xEF\xBB\xBF", "not JSON");
  refuses(good.substr(0, good.size() - 1) + R"(,"model":"other"})", "field 'model' is there twice");
  std::string twice = good;
  twice.insert(twice.find("\"tp\""), R"("tp":1,)");
  refuses(twice, "field 'tp' is there twice");
  const std::string deep(100'000, '[');
  refuses(deep, "nested deeper");
  refuses(R"({"schema":"drydock.runtime","slo":)" + deep, "nested deeper");
  std::string objects;
  for (int i = 0; i < 1000; ++i) objects += R"({"a":)";
  refuses(objects, "nested deeper");
  refuses(good.substr(0, good.size() - 1) + R"(,"a":1e999})", "1e999");
  refuses(std::string((16u << 20) + 1, ' '), "bytes of JSON");
  refuses("[]", "want a JSON object");
  refuses("null", "want a JSON object");
  refuses("\"drydock.runtime\"", "want a JSON object");
  refuses(R"({"schema":"drydock.runtim"})", "schema");
  refuses(served_with("/version", 2), "field 'version'");
}
