// Targets k8s and dynamo: what they write leads back to the plan, whatever its names are.
#include <doctest/doctest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "generators/dynamo_planner.h"
#include "generators/engine_figures.h"
#include "generators/flags.h"
#include "generators/kubernetes_parts.h"
#include "generators/kubernetes_workload.h"
#include "generators/planner_profile.h"
#include "generators/sglang_flags.h"
#include "generators/vllm_flags.h"
#include "tests/effort.h"
#include "tests/hostile_names.h"
#include "tests/random_plans.h"

using namespace drydock;
using doctest::Contains;
using models::Backend;
using tests::PlanCase;

namespace {

std::vector<YAML::Node> objects_of(const std::vector<generators::OutputFile>& files) {
  std::vector<YAML::Node> out;
  for (const generators::OutputFile& file : files)
    if (file.path.ends_with(".yaml"))
      for (const YAML::Node& node : YAML::LoadAll(file.text)) out.push_back(node);
  return out;
}

// The object of a kind whose name ends so.
YAML::Node object_of(const std::vector<YAML::Node>& objects, const std::string& kind, const std::string& ending = "") {
  for (const YAML::Node& node : objects)
    if (node["kind"].as<std::string>() == kind && node["metadata"]["name"].as<std::string>().ends_with(ending))
      return node;
  FAIL("no object " << kind << " " << ending);
  return {};
}

bool has_object(const std::vector<YAML::Node>& objects, const std::string& kind, const std::string& ending) {
  return std::any_of(objects.begin(), objects.end(), [&](const YAML::Node& node) {
    return node["kind"].as<std::string>() == kind && node["metadata"]["name"].as<std::string>().ends_with(ending);
  });
}

int gpus_of(const YAML::Node& container) { return container["resources"]["limits"]["nvidia.com/gpu"].as<int>(); }

std::vector<std::string> texts(const YAML::Node& list) {
  std::vector<std::string> out;
  for (const YAML::Node& item : list) out.push_back(item.as<std::string>());
  return out;
}

std::string after(const std::vector<std::string>& words, const std::string& flag) {
  const auto at = std::find(words.begin(), words.end(), flag);
  return at == words.end() || at + 1 == words.end() ? "" : *(at + 1);
}

// As Kubernetes reads an argument.
std::string expanded(std::string text) {
  for (size_t at = 0; (at = text.find("$$", at)) != std::string::npos; ++at) text.erase(at, 1);
  return text;
}

const generators::Target& kubernetes() { return generators::target("k8s"); }
const generators::Target& dynamo() { return generators::target("dynamo"); }

// The shape of a document: its keys, lengths and kinds of values.
std::string shape_of(const YAML::Node& node) {
  std::string out;
  if (node.IsMap())
    for (const auto& item : node) out += item.first.as<std::string>() + ":{" + shape_of(item.second) + "}";
  else if (node.IsSequence())
    for (const auto& item : node) out += "[" + shape_of(item) + "]";
  else
    out = node.IsNull() ? "0" : "s";
  return out;
}

void check_runtime_pool(const PlanCase& c, const models::Pool& pool, const std::vector<YAML::Node>& objects) {
  const std::string role(models::name(pool.role));
  const int per_node = c.systems.at(pool.system).hardware.gpus_per_node, gpus = pool.parallelism.gpus();
  const int nodes = (gpus + per_node - 1) / per_node;
  const std::string kind = nodes > 1 ? "LeaderWorkerSet" : "StatefulSet";
  const YAML::Node workload = object_of(objects, kind, "-" + role);
  CHECK(workload["spec"]["replicas"].as<int>() == pool.replicas);
  const YAML::Node group = workload["spec"]["leaderWorkerTemplate"];
  if (nodes > 1) CHECK(group["size"].as<int>() == nodes);
  for (const char* part : {"leaderTemplate", "workerTemplate"}) {
    const YAML::Node pod = nodes > 1 ? group[part] : workload["spec"]["template"];
    CHECK(gpus_of(pod["spec"]["containers"][0]) * nodes == gpus);
    CHECK(after(texts(pod["spec"]["containers"][0]["args"]), "--role") ==
          "worker:" + role + "/$(DRYDOCK_WORKER_INDEX)");
  }
  const YAML::Node scaler = object_of(objects, "HorizontalPodAutoscaler", "-" + role);
  CHECK(scaler["spec"]["scaleTargetRef"]["kind"].as<std::string>() == kind);
  CHECK(scaler["spec"]["minReplicas"].as<int>() == pool.replicas);
  CHECK(scaler["spec"]["maxReplicas"].as<int>() == 2 * pool.replicas);
}

// Every worker that autoscaling may start is configured as the plan has it.
void check_runtime_workers(const PlanCase& c, const std::vector<YAML::Node>& objects) {
  const auto json = core::parse_json(
      object_of(objects, "ConfigMap", "-runtime")["data"]["runtime.json"].as<std::string>(), "runtime.json");
  size_t workers = 0;
  for (const models::Pool& pool : c.plan.pools)
    for (int i = 0; i < 2 * pool.replicas; ++i) {
      const core::Json& worker = json["workers"][workers++];
      CHECK(worker["name"] == std::string(models::name(pool.role)) + "/" + std::to_string(i));
      CHECK(worker["max_batch"] == pool.max_batch);
      CHECK(worker["max_tokens"] == pool.max_tokens);
      CHECK(worker["kv_blocks"] == pool.kv_blocks);
      CHECK(worker["gpus"] == pool.parallelism.gpus());
    }
  CHECK(json["workers"].size() == workers);
}

void check_dynamo_engine(const PlanCase& c, const models::Pool& pool, const YAML::Node& container,
                         const std::vector<YAML::Node>& objects) {
  std::vector<std::string> args;
  for (const std::string& text : texts(container["args"])) args.push_back(expanded(text));
  const auto f = generators::engine_figures(c.request(), pool);
  const models::Parallelism& p = pool.parallelism;
  const std::string role(models::name(pool.role));
  if (pool.role != models::Role::worker) CHECK(std::count(args.begin(), args.end(), "--disaggregation-mode") == 1);
  CHECK(after(args, "--disaggregation-mode") == (pool.role == models::Role::worker ? "" : role));
  if (c.plan.backend == Backend::vllm) {
    CHECK(std::stoll(after(args, "--max-num-seqs")) * p.attention_dp == pool.max_batch);
    CHECK(std::stoll(after(args, "--max-num-batched-tokens")) == pool.max_tokens);
    CHECK(std::stoi(after(args, "--tensor-parallel-size")) == p.tp);
    CHECK(std::stod(after(args, "--gpu-memory-utilization")) == f.of_all());
  } else if (c.plan.backend == Backend::sglang) {
    CHECK(std::stoll(after(args, "--max-running-requests")) == pool.max_batch);
    CHECK(std::stoll(after(args, "--max-total-tokens")) == pool.kv_blocks * models::kKvBlockTokens);
    CHECK(std::stoi(after(args, "--tp-size")) == p.tp * p.attention_dp);
    // Other pods ask it where KV blocks lie: the default address would hear this pod alone.
    CHECK(after(args, "--host") == (pool.role == models::Role::worker ? "" : "0.0.0.0"));
  } else {
    CHECK(after(args, "--extra-engine-args") == "/etc/engine/" + role + ".yaml");
    const YAML::Node options =
        YAML::Load(object_of(objects, "ConfigMap", "-engine")["data"][role + ".yaml"].as<std::string>());
    CHECK(options["max_batch_size"].as<int64_t>() * p.attention_dp == pool.max_batch);
    CHECK(options["max_num_tokens"].as<int64_t>() == pool.max_tokens);
    CHECK(options["tensor_parallel_size"].as<int>() == p.tp * p.attention_dp);
    CHECK(options["pipeline_parallel_size"].as<int>() == p.pp);
    CHECK(options["moe_expert_parallel_size"].as<int>(1) == p.ep);
    CHECK(options["kv_cache_config"]["max_tokens"].as<int64_t>() == pool.kv_blocks * models::kKvBlockTokens);
  }
}

// One component of the graph in either version's words.
struct GraphPart {
  std::string type;
  YAML::Node node, container;
  int gpus = 0;
};

std::vector<GraphPart> graph_parts(const YAML::Node& graph) {
  std::vector<GraphPart> out;
  for (const YAML::Node& c : graph["spec"]["components"]) {
    const YAML::Node container = c["podTemplate"]["spec"]["containers"][0];
    out.push_back({c["type"].as<std::string>(), c, container, container["resources"] ? gpus_of(container) : 0});
  }
  for (const auto& item : graph["spec"]["services"]) {
    const YAML::Node c = item.second;
    const std::string type = c["componentType"].as<std::string>();
    out.push_back({c["subComponentType"].as<std::string>(type), c, c["extraPodSpec"]["mainContainer"],
                   c["resources"] ? c["resources"]["limits"]["gpu"].as<int>() : 0});
  }
  return out;
}

bool check_dynamo(PlanCase c, const std::string& version) {
  c.settings["api-version"] = version;
  std::vector<YAML::Node> objects;
  try {
    objects = objects_of(dynamo().files(c.request()));
  } catch (const core::Error&) {
    return false;  // what the engines can't express; why is tested where they are
  }
  const YAML::Node graph = object_of(objects, "DynamoGraphDeployment");
  CHECK(graph["apiVersion"].as<std::string>() == "nvidia.com/" + version);
  size_t engines = 0;
  for (const GraphPart& part : graph_parts(graph)) {
    if (part.gpus == 0) continue;
    const models::Pool& pool = c.plan.pools[engines++];
    const int nodes = part.node["multinode"] ? part.node["multinode"]["nodeCount"].as<int>() : 1;
    CHECK(part.gpus * nodes == pool.parallelism.gpus());
    CHECK(part.node["replicas"].as<int>() == pool.replicas);
    CHECK(part.type == (pool.role == models::Role::worker ? "decode" : std::string(models::name(pool.role))));
    check_dynamo_engine(c, pool, part.container, objects);
  }
  CHECK(engines == c.plan.pools.size());
  return true;
}

PlanCase small_case(Backend backend, bool apart) {
  for (uint64_t seed = 1;; ++seed) {
    PlanCase c = tests::random_case(seed, backend);
    if (c.plan.mode != (apart ? models::Mode::disagg : models::Mode::agg)) continue;
    const auto plain = [](const models::Pool& pool) {
      return pool.parallelism.gpus() <= 4 && pool.parallelism.ep == 1 && pool.parallelism.attention_dp == 1;
    };
    if (std::all_of(c.plan.pools.begin(), c.plan.pools.end(), plain)) return c;
  }
}

}  // namespace

TEST_CASE("k8s: GPUs, replicas, batches and memory of random plans come back") {
  int multinode = 0;
  for (uint64_t seed = 0; seed < 300 / tests::kLighter; ++seed) {
    CAPTURE(seed);
    const PlanCase c = tests::random_case(seed, static_cast<Backend>(seed % models::kBackends));
    const auto objects = objects_of(kubernetes().files(c.request()));
    for (const models::Pool& pool : c.plan.pools) check_runtime_pool(c, pool, objects);
    check_runtime_workers(c, objects);
    multinode += has_object(objects, "LeaderWorkerSet", "");
  }
  CHECK(multinode > 0);
}

TEST_CASE("k8s: the autoscaler's metrics are those that the router writes, and lead to its Service") {
  const PlanCase c = small_case(Backend::vllm, true);
  const auto objects = objects_of(kubernetes().files(c.request()));
  const std::string writer = core::read_file(DRYDOCK_SOURCE_DIR "/runtime/http_metrics.cpp");
  CHECK(writer.find("{\"role\", worker.role}") != std::string::npos);  // the label that is selected by
  const YAML::Node scraped = object_of(objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0];
  const YAML::Node label = scraped["relabelings"][0];
  CHECK(label["targetLabel"].as<std::string>() == "service");
  for (const char* role : {"prefill", "decode"})
    for (const YAML::Node& metric :
         object_of(objects, "HorizontalPodAutoscaler", std::string("-") + role)["spec"]["metrics"]) {
      const YAML::Node object = metric["object"];
      CHECK(writer.find("\"" + object["metric"]["name"].as<std::string>() + "\"") != std::string::npos);
      CHECK(object["metric"]["selector"]["matchLabels"]["role"].as<std::string>() == role);
      const std::string service = object["describedObject"]["name"].as<std::string>();
      CHECK(object["describedObject"]["kind"].as<std::string>() == "Service");
      CHECK(label["replacement"].as<std::string>() == service);
      CHECK(has_object(objects, "Service", service));
    }
}

TEST_CASE("dynamo: GPUs, replicas, batches and memory of random plans come back, in both versions of its API") {
  std::array<int, models::kEngines> written{};
  for (uint64_t seed = 0; seed < 240 / tests::kLighter; ++seed) {
    CAPTURE(seed);
    const auto backend = static_cast<size_t>(seed % models::kEngines);
    const PlanCase c = tests::random_case(seed, static_cast<Backend>(backend));
    written[backend] += check_dynamo(c, seed % 2 == 0 ? "v1beta1" : "v1alpha1");
  }
  for (const int count : written) CHECK(count > 10 / tests::kLighter);
}

TEST_CASE("hostile names and settings change no object's structure, and reach the container as they are") {
  for (const Backend backend : {Backend::vllm, Backend::sglang, Backend::trtllm}) {
    for (const generators::Target* target : {&kubernetes(), &dynamo()}) {
      PlanCase plain = small_case(backend, true);
      const std::vector<const char*> keys = {"image",       "namespace",   "secret",       "storage-class",
                                             "model-claim", "hf-secret",   "model-path",   "served-name",
                                             "name",        "gpu-product", "planner-image"};
      for (const char* key : keys) plain.settings[key] = "plain";
      const auto expected = target->files(plain.request());
      for (const std::string& name : tests::hostile_names()) {
        CAPTURE(name.substr(0, 40));
        PlanCase c = plain;
        c.plan.model = name;
        for (const char* key : keys) c.settings[key] = name;
        const auto files = target->files(c.request());
        REQUIRE(files.size() == expected.size());
        for (size_t i = 0; i < files.size(); ++i) {
          CHECK(files[i].path == expected[i].path);
          const auto got = YAML::LoadAll(files[i].text), want = YAML::LoadAll(expected[i].text);
          REQUIRE(got.size() == want.size());
          for (size_t d = 0; d < got.size(); ++d) CHECK(shape_of(got[d]) == shape_of(want[d]));
        }
        if (target == &dynamo()) {
          const auto parts = graph_parts(object_of(objects_of(files), "DynamoGraphDeployment"));
          CHECK(parts[0].container["image"].as<std::string>() == name);
          const auto args = texts(parts.back().container["args"]);
          CHECK(expanded(after(args, "--served-model-name")) == name);
          for (const std::string& arg : args)
            CHECK(arg.find("$(") == arg.find("$$(") + (arg.find("$(") == std::string::npos ? 0 : 1));
        }
      }
    }
  }
}

TEST_CASE("equal plans give equal files, and names of objects are those of the plan") {
  const PlanCase c = small_case(Backend::vllm, false);
  const auto first = kubernetes().files(c.request()), second = kubernetes().files(c.request());
  REQUIRE(first.size() == second.size());
  for (size_t i = 0; i < first.size(); ++i) CHECK(first[i].text == second[i].text);
  CHECK(first[0].text.starts_with("# Made by drydock"));
  CHECK(first[0].text.find(generators::plan_hash(c.plan)) != std::string::npos);
}

TEST_CASE("an engine without GPUs asks the cluster for none") {
  PlanCase c = small_case(Backend::drydock, false);
  c.settings["engine"] = "emulated";
  const YAML::Node set = object_of(objects_of(kubernetes().files(c.request())), "StatefulSet");
  const YAML::Node pod = set["spec"]["template"]["spec"];
  CHECK(!pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]);
  CHECK(!pod["affinity"]);
}

TEST_CASE("settings that Kubernetes would refuse are refused first, in one line") {
  PlanCase c = small_case(Backend::vllm, false);
  const auto with = [&](const char* key, const char* value) {
    PlanCase changed = c;
    changed.settings[key] = value;
    return changed;
  };
  CHECK_THROWS_WITH_AS(kubernetes().files(with("storage-size", "80 GB").request()),
                       Contains("--set storage-size=80 GB"), core::Error);
  CHECK_THROWS_WITH_AS(kubernetes().files(with("memory-per-gpu", "-1Gi").request()), Contains("64Gi"), core::Error);
  CHECK_THROWS_WITH_AS(kubernetes().files(with("cpus-per-gpu", "0").request()), Contains("from 1 to 1024"),
                       core::Error);
  CHECK_THROWS_WITH_AS(kubernetes().files(with("engine", "cud").request()), Contains("want one of cuda, cpu, emulated"),
                       core::Error);
  CHECK_THROWS_WITH_AS(dynamo().files(with("api-version", "v1").request()), Contains("v1beta1, v1alpha1"), core::Error);
  PlanCase uneven = c;
  uneven.plan.pools[0].parallelism = {6, 2, 1, 1, 1};  // 12 GPUs: two nodes' 6 each, or three's 4
  CHECK(kubernetes().files(uneven.request()).size() > 0);
  uneven.plan.pools[0].parallelism = {13, 1, 1, 1, 1};
  CHECK_THROWS_WITH_AS(kubernetes().files(uneven.request()), Contains("evenly"), core::Error);
}

TEST_CASE("the planner is there where the plan has both targets, told of them and of the simulated profile") {
  PlanCase c = small_case(Backend::vllm, true);
  c.plan.slo = {800.0, 15.0, std::nullopt, 95.0};
  auto request = c.request();
  CHECK(generators::wants_planner(request));
  core::Json config = generators::planner_config(request);
  CHECK(config["ttft"] == 800.0);
  CHECK(config["itl"] == 15.0);
  CHECK(config["max_gpu_budget"] == c.plan.gpus());
  CHECK(config["mode"] == "disagg");
  CHECK(config["decode_engine_num_gpu"] == c.plan.pools[1].parallelism.gpus());
  CHECK(config["enable_throughput_scaling"] == false);  // nothing to plan by
  generators::PlannerProfile profile;
  profile.prompt_tokens = {100, 200};
  profile.ttft_ms = {10, 19.5};
  profile.prompt_tokens_per_s_gpu = {5000, 5100};
  profile.max_kv_tokens = 1000;
  request.planner_profile = std::make_shared<const generators::PlannerProfile>(profile);
  config = generators::planner_config(request);
  CHECK(config["enable_throughput_scaling"] == true);
  CHECK(config["profile_results_dir"] == "/workspace/profiling_results");
  const auto objects = objects_of(dynamo().files(request));
  const auto data = core::parse_json(
      object_of(objects, "ConfigMap", "-planner-profile")["data"]["prefill_raw_data.json"].as<std::string>(), "data");
  CHECK(data["prefill_isl"] == core::Json({100, 200}));
  CHECK(data["prefill_ttft"][1] == 19.5);

  c.plan.slo.ttft_ms.reset();
  CHECK(!generators::wants_planner(c.request()));
  c.settings["planner"] = "on";
  CHECK_THROWS_WITH_AS(dynamo().files(c.request()), Contains("no target of TTFT"), core::Error);
}
