// Targets triton, kserve, llm-d, grafana and alerts, and the archive of the planner's data.
#include <doctest/doctest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/file.h"
#include "generators/burn_rate.h"
#include "generators/engine_figures.h"
#include "generators/metric_names.h"
#include "generators/npz.h"
#include "generators/triton_templates.h"
#include "tests/effort.h"
#include "tests/hostile_names.h"
#include "tests/random_plans.h"

using namespace drydock;
using doctest::Approx;
using doctest::Contains;
using models::Backend;
using tests::PlanCase;

namespace {

std::string file_text(const std::vector<generators::OutputFile>& files, const std::string& path) {
  for (const auto& file : files)
    if (file.path == path) return file.text;
  FAIL("no file " << path);
  return "";
}

std::vector<generators::OutputFile> files_of(const char* target, const PlanCase& c) {
  return generators::target(target).files(c.request());
}

bool one_node(const PlanCase& c) {
  return std::all_of(c.plan.pools.begin(), c.plan.pools.end(), [&](const models::Pool& pool) {
    return pool.parallelism.gpus() <= c.systems.at(pool.system).hardware.gpus_per_node;
  });
}

PlanCase platform_case(Backend backend, models::Mode mode) {
  for (uint64_t seed = 1;; ++seed) {
    PlanCase c = tests::random_case(seed, backend);
    const auto plain = [](const models::Pool& pool) {
      return pool.parallelism.ep == 1 && pool.parallelism.attention_dp == 1 && pool.parallelism.pp == 1;
    };
    if (c.plan.mode == mode && one_node(c) && std::all_of(c.plan.pools.begin(), c.plan.pools.end(), plain)) return c;
  }
}

}  // namespace

TEST_CASE("triton: the plan is in values.yaml alone, and comes back from it") {
  int written = 0;
  for (uint64_t seed = 0; seed < 200 / tests::kLighter; ++seed) {
    CAPTURE(seed);
    const PlanCase c = tests::random_case(seed, Backend::trtllm);
    std::vector<generators::OutputFile> files;
    try {
      files = files_of("triton", c);
    } catch (const core::Error&) {
      continue;
    }
    ++written;
    const models::Pool& pool = c.plan.pools[0];
    const YAML::Node values = YAML::Load(file_text(files, "triton/values.yaml")),
                     model = values["model"]["tensorrtLlm"];
    CHECK(model["parallelism"]["tensor"].as<int>() * model["parallelism"]["pipeline"].as<int>() ==
          pool.parallelism.gpus());
    CHECK(model["options"]["max_batch_size"].as<int64_t>() * pool.parallelism.attention_dp == pool.max_batch);
    CHECK(model["options"]["max_num_tokens"].as<int64_t>() == pool.max_tokens);
    CHECK(model["options"]["kv_cache_config"]["max_tokens"].as<int64_t>() == pool.kv_blocks * models::kKvBlockTokens);
    CHECK(values["autoscaling"]["replicas"]["minimum"].as<int>() == pool.replicas);
    for (const generators::ChartFile& file : generators::triton_chart_files())
      CHECK(file_text(files, "triton/" + std::string(file.path)) == file.text);
  }
  CHECK(written > 20 / tests::kLighter);
}

TEST_CASE("triton refuses what one server on one node can't be") {
  CHECK_THROWS_WITH_AS(files_of("triton", platform_case(Backend::vllm, models::Mode::agg)), Contains("backend vllm"),
                       core::Error);
  CHECK_THROWS_WITH_AS(files_of("triton", platform_case(Backend::trtllm, models::Mode::disagg)), Contains("apart"),
                       core::Error);
}

TEST_CASE("kserve: a service of its own engine, or KServe's for vLLM where there is more than one pod") {
  PlanCase c = platform_case(Backend::vllm, models::Mode::agg);
  const models::Pool& pool = c.plan.pools[0];
  const YAML::Node service = YAML::Load(file_text(files_of("kserve", c), "kserve/inference-service.yaml"));
  const YAML::Node predictor = service["spec"]["predictor"];
  CHECK(predictor["minReplicas"].as<int>() == pool.replicas);
  CHECK(predictor["containers"][0]["resources"]["limits"]["nvidia.com/gpu"].as<int>() == pool.parallelism.gpus());
  CHECK(predictor["containers"][0]["args"][0].as<std::string>() == generators::model_path(c.request()));

  c = platform_case(Backend::vllm, models::Mode::disagg);
  c.settings["draft-model"] = "it's $(x)";
  c.plan.speculative = "draft:k=2,p=0.5";
  const YAML::Node spec = YAML::Load(file_text(files_of("kserve", c), "kserve/llm-inference-service.yaml"))["spec"];
  CHECK(spec["replicas"].as<int>() == c.plan.pools[1].replicas);
  CHECK(spec["prefill"]["replicas"].as<int>() == c.plan.pools[0].replicas);
  CHECK(spec["parallelism"]["tensor"].as<int>() == c.plan.pools[1].parallelism.tp);
  const std::string words = spec["template"]["containers"][0]["env"][0]["value"].as<std::string>();
  CHECK(words.find("--max-num-seqs " + std::to_string(c.plan.pools[1].max_batch)) != std::string::npos);
  CHECK(words.find("it'\\''s $$(x)") != std::string::npos);  // for the shell, and not for Kubernetes
  CHECK_THROWS_WITH_AS(files_of("kserve", platform_case(Backend::sglang, models::Mode::disagg)), Contains("sglang"),
                       core::Error);
}

TEST_CASE("llm-d: values of the chart, without the flags that it adds itself") {
  PlanCase c = platform_case(Backend::vllm, models::Mode::disagg);
  c.settings["model-path"] = "a/{{ .Values.x }}";
  const YAML::Node values = YAML::Load(file_text(files_of("llm-d", c), "llm-d/values.yaml"));
  for (const models::Pool& pool : c.plan.pools) {
    const YAML::Node part = values[std::string(models::name(pool.role))];
    CHECK(part["replicas"].as<int>() == pool.replicas);
    CHECK(part["parallelism"]["tensor"].as<int>() * part["parallelism"]["dataLocal"].as<int>() ==
          part["containers"][0]["resources"]["limits"]["nvidia.com/gpu"].as<int>());
    std::string args;
    for (const YAML::Node& arg : part["containers"][0]["args"]) args += arg.as<std::string>() + " ";
    CHECK(args.find("--max-num-seqs " + std::to_string(pool.max_batch) + " ") != std::string::npos);
    CHECK(args.find("--tensor-parallel-size") == std::string::npos);
  }
  CHECK(values["modelArtifacts"]["uri"].as<std::string>() == "hf://a/{{ \"{{\" }} .Values.x }}");
}

TEST_CASE("grafana: the plan's targets are lines, panels lie side by side and no name is a query") {
  PlanCase c = platform_case(Backend::drydock, models::Mode::agg);
  c.plan.slo = {750.0, 12.5, std::nullopt, 99.0};
  for (const std::string& name : tests::hostile_names()) {
    c.plan.model = name;
    const auto board = core::parse_json(file_text(files_of("grafana", c), "grafana/dashboard.json"), "dashboard");
    CHECK(board["title"] == "Drydock: " + name);
    std::vector<double> lines;
    for (const core::Json& panel : board["panels"]) {
      CHECK(panel["gridPos"]["x"].get<int>() + panel["gridPos"]["w"].get<int>() <= 24);
      if (panel.contains("targets"))
        for (const core::Json& target : panel["targets"])
          CHECK(target["expr"].get<std::string>().find(name == "yes" ? "\"yes\"" : name) == std::string::npos);
      const auto& defaults = panel.value("fieldConfig", core::Json::object()).value("defaults", core::Json::object());
      if (defaults.contains("thresholds")) lines.push_back(defaults["thresholds"]["steps"][1]["value"].get<double>());
    }
    REQUIRE(lines.size() >= 2);
    CHECK(lines[0] == Approx(0.75));
    CHECK(lines[1] == Approx(0.0125));
  }
}

TEST_CASE("dashboards and alerts ask the runtime for metrics and labels that it has") {
  PlanCase c = platform_case(Backend::drydock, models::Mode::agg);
  c.plan.model = "qwen3-32b";  // as typed: the runtime labels its metrics so
  const std::string writer = core::read_file(DRYDOCK_SOURCE_DIR "/runtime/http_metrics.cpp");
  const auto board = core::parse_json(file_text(files_of("grafana", c), "grafana/dashboard.json"), "dashboard");
  std::string asked = file_text(files_of("alerts", c), "alerts/rules.yaml");
  CHECK(asked.find("model=\\\"qwen3-32b\\\"") != std::string::npos);
  for (const core::Json& panel : board["panels"])
    for (const core::Json& target : panel.value("targets", core::Json::array())) {
      const std::string expression = target["expr"];
      // Totals of the router have no label of a worker.
      if (expression.find("drydock_kv_transfers") != std::string::npos)
        CHECK(expression.find("worker") == std::string::npos);
      asked += "\n" + expression;
    }
  int names = 0;
  for (size_t at = 0; (at = asked.find("drydock_", at)) != std::string::npos; ++names) {
    std::string name = asked.substr(at, asked.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", at) - at);
    at += name.size();
    for (const std::string end : {"_bucket", "_sum", "_count"})
      if (name.ends_with(end)) name.resize(name.size() - end.size());
    CHECK_MESSAGE(writer.find('"' + name + '"') != std::string::npos, name);
  }
  CHECK(names > 20);
  // Other servers know neither roles nor workers.
  const auto other = core::parse_json(
      file_text(files_of("grafana", platform_case(Backend::vllm, models::Mode::agg)), "grafana/dashboard.json"),
      "board");
  CHECK(other["templating"]["list"].size() == 2);
}

TEST_CASE("burn rates: the share of a window that uses a month's budget up so much faster") {
  // SRE Workbook: 14.4 x a budget of 1 % is 14.4 % of the requests; of 10 % it would be more than all.
  CHECK(generators::burning_share(0.99, 14.4) == Approx(0.144));
  CHECK(generators::burning_share(0.9, 14.4) == 0.8);
  const generators::LatencyTarget target{"TTFT", "ttft_seconds", 0.5};
  const std::string with =
      generators::burn_expression(target, "{model=\"m\"}", "model", 0.95, generators::burn_windows()[1]);
  // 6 x 5 % = 30 % beyond the target is a 70th percentile beyond it.
  CHECK(with.find("histogram_quantile(0.7, sum by (le, model) (rate(ttft_seconds_bucket{model=\"m\"}[6h]))) > 0.5") !=
        std::string::npos);
  CHECK(with.find(") and (") != std::string::npos);
  CHECK(with.find("[30m]") != std::string::npos);
  const std::string mean =
      generators::burn_expression(target, "", "model", std::nullopt, generators::burn_windows()[0]);
  CHECK(mean.find("rate(ttft_seconds_sum[1h])) / sum by (model) (rate(ttft_seconds_count[1h]))) > 0.5") !=
        std::string::npos);
}

TEST_CASE("alerts: a rule for each target and window, of the model by its name whatever it is") {
  PlanCase c = platform_case(Backend::vllm, models::Mode::agg);
  c.plan.slo = {750.0, std::nullopt, std::nullopt, 99.0};
  c.settings["served-name"] = "a\"b\\c\n";
  const auto files = files_of("alerts", c);
  const YAML::Node rules = YAML::Load(file_text(files, "alerts/rules.yaml"))["groups"];
  const YAML::Node same = YAML::Load(file_text(files, "alerts/prometheus-rule.yaml"))["spec"]["groups"];
  CHECK(rules.size() == same.size());
  REQUIRE(rules[0]["rules"].size() == 4);
  CHECK(rules[0]["rules"][0]["alert"].as<std::string>() == "DrydockTTFTBurn");
  const std::string expr = rules[0]["rules"][0]["expr"].as<std::string>();
  CHECK(expr.find("{model_name=\"a\\\"b\\\\c\\u000a\"}") != std::string::npos);
  CHECK(expr.find("> 0.75") != std::string::npos);
  CHECK(file_text(files, "alerts/rules_test.yaml").find("rule_files") != std::string::npos);
  c.settings["metrics"] = "nagios";
  CHECK_THROWS_WITH_AS(files_of("alerts", c), Contains("drydock, vllm, sglang, trtllm, dynamo"), core::Error);
}

TEST_CASE("an archive of arrays has NumPy's headers, its values and the same bytes each time") {
  const std::vector<generators::NpzArray> arrays = {{"x", std::vector<double>{1.5, -2}},
                                                    {"n", std::vector<int64_t>{7}}};
  const std::string text = generators::npz(arrays);
  CHECK(text == generators::npz(arrays));
  CHECK(text.starts_with("PK\x03\x04"));
  const size_t x = text.find("\x93NUMPY"), n = text.find("\x93NUMPY", x + 1);
  REQUIRE(n != std::string::npos);
  CHECK(text[x + 6] == 1);  // version 1.0
  const size_t header = static_cast<unsigned char>(text[x + 8]) + 256u * static_cast<unsigned char>(text[x + 9]);
  CHECK((10 + header) % 64 == 0);
  CHECK(text.find("'<f8', 'fortran_order': False, 'shape': (2,)", x) < n);
  double values[2];
  std::memcpy(values, text.data() + x + 10 + header, sizeof values);
  CHECK(values[0] == 1.5);
  CHECK(values[1] == -2);
  CHECK(text.find("'<i8', 'fortran_order': False, 'shape': (1,)", n) != std::string::npos);
}
