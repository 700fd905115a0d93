// What `generate --target dynamo` tells Dynamo's planner of the engines comes from the simulator and can be planned by.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/file.h"
#include "core/json.h"
#include "tests/run.h"

using namespace drydock;
using core::Json;

namespace {

// A file of the planner's ConfigMap in the generated YAML, where it is one double-quoted line.
Json planner_file(const std::string& yaml, const std::string& name) {
  const size_t begin = yaml.find("\"", yaml.find(name + ":") + name.size()), end = yaml.find("\n", begin);
  REQUIRE(end != std::string::npos);
  const Json text = core::parse_json("[" + yaml.substr(begin, end - begin) + "]", name);
  return core::parse_json(text[0].get<std::string>(), name);
}

}  // namespace

TEST_CASE("the planner's profile is of the plan's engines: longer prompts take longer, fuller caches too") {
  const tests::Scratch scratch;
  const std::string plan = DRYDOCK_SOURCE_DIR "/tests/data/generate/plan.json";
  const auto run = tests::run_drydock({"generate", "--plan", plan, "--target", "dynamo", "--out", scratch / "out"});
  REQUIRE_MESSAGE(run.exit_code == 0, run.err);
  const std::string yaml = core::read_file(scratch / "out/dynamo/deployment.yaml");
  const Json prompts = planner_file(yaml, "prefill_raw_data.json");
  const auto lengths = prompts["prefill_isl"].get<std::vector<double>>();
  const auto ttft = prompts["prefill_ttft"].get<std::vector<double>>();
  const auto rate = prompts["prefill_thpt_per_gpu"].get<std::vector<double>>();
  REQUIRE(lengths.size() >= 4);  // the planner fits a cubic
  CHECK(std::is_sorted(lengths.begin(), lengths.end()));
  CHECK(std::adjacent_find(lengths.begin(), lengths.end()) == lengths.end());
  CHECK(lengths.front() <= 4000);
  CHECK(lengths.back() >= 4000);
  CHECK(ttft.back() > 10 * ttft.front());      // 16,000 tokens against 64 on a GPU that is busy with a few hundred
  for (size_t i = 0; i < lengths.size(); ++i)  // one GPU an instance: tokens over time
    CHECK(rate[i] == doctest::Approx(lengths[i] / ttft[i] * 1000));

  const Json tokens = planner_file(yaml, "decode_raw_data.json");
  const auto usage = tokens["x_kv_usage"].get<std::vector<double>>();
  const auto context = tokens["y_context_length"].get<std::vector<double>>();
  const auto itl = tokens["z_itl"].get<std::vector<double>>();
  const auto per_gpu = tokens["z_thpt_per_gpu"].get<std::vector<double>>();
  REQUIRE(usage.size() >= 16);
  for (size_t i = 0; i < usage.size(); ++i) {
    CHECK(usage[i] > 0);
    CHECK(usage[i] <= 1);
    // Sequences in the batch, from the share of the cache they hold; four GPUs serve them.
    const double batch = usage[i] * tokens["max_kv_tokens"].get<double>() / context[i];
    CHECK(std::abs(batch - std::round(batch)) < 1e-3);
    CHECK(std::round(batch) <= 123);  // the plan's
    CHECK(per_gpu[i] == doctest::Approx(std::round(batch) / itl[i] * 1000 / 4));
    if (i > 0 && context[i] == context[i - 1]) CHECK(itl[i] > itl[i - 1] * 0.98);
  }
  // The archive beside it holds the same, first in the order of names.
  const std::string archive =
      core::read_file(scratch / "out/dynamo/profiling_results/selected_prefill_interpolation/raw_data.npz");
  CHECK(archive.find("prefill_isl.npy") != std::string::npos);
  CHECK(run.out.find("raw_data.npz") != std::string::npos);
}
