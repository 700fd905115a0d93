#include <doctest/doctest.h>
#include <yaml-cpp/yaml.h>

#include <fstream>

#include "core/error.h"
#include "core/file.h"
#include "generators/engine_figures.h"
#include "generators/engine_version.h"
#include "generators/manifest.h"
#include "generators/sglang_flags.h"
#include "generators/text.h"
#include "generators/trtllm_options.h"
#include "generators/vllm_flags.h"
#include "tests/random_plans.h"
#include "tests/run.h"

using namespace drydock;
using core::Json;
using doctest::Contains;
using generators::Flags;
using models::Backend;
using tests::PlanCase;

namespace {

// DeepSeek-V3 on two H200 nodes: attention DP over all 16 GPUs, experts spread over them, 16 redundant ones.
PlanCase deepseek(Backend backend) {
  PlanCase c;
  c.architecture = models::find_model("deepseek-ai/DeepSeek-V3");
  c.systems["h200_sxm"] = models::find_system("h200_sxm");
  c.precision = c.architecture.precision;
  c.precision.kv = core::Dtype::fp8;
  c.plan.model = "deepseek-ai/DeepSeek-V3";
  c.plan.backend = backend;
  c.plan.workload.isl = 4000;
  c.plan.workload.osl = 1000;
  c.plan.speculative = "mtp:k=2,p=0.8";
  c.plan.experts.skew = 0.8;
  c.plan.experts.slots = 272;
  models::Pool pool{models::Role::worker, "h200_sxm", {1, 1, 16, 1, 16}, 1, 512, 8192};
  pool.kv_blocks = tests::fitting_blocks(c, pool, 272.0 / 256);
  c.plan.pools = {pool};
  return c;
}

std::string text_of(const std::vector<generators::OutputFile>& files, const std::string& path) {
  for (const auto& file : files)
    if (file.path == path) return file.text;
  FAIL("no file " << path);
  return "";
}

std::string line(const Flags& flags) {
  std::string out;
  for (const std::string& word : generators::words(flags)) out += word + " ";
  return out;
}

}  // namespace

TEST_CASE("YAML values keep their kind for every reader, keys too") {
  const Json value = {{"yes", "no"},           {"0x10", 1e20},          {"a", -1.5},          {"b", nullptr},
                      {"list", Json::array()}, {"map", Json::object()}, {"t", "x\n# y: \xff"}};
  const std::string text = generators::yaml(value);
  CHECK(text.find("\"yes\": \"no\"\n") != std::string::npos);
  CHECK(text.find("1.0e+20") != std::string::npos);  // without a point YAML 1.1 reads a text
  const YAML::Node back = YAML::Load(text);
  CHECK(back["0x10"].as<double>() == 1e20);
  CHECK(back["list"].IsSequence());
  CHECK(back["map"].IsMap());
  CHECK(back["b"].IsNull());
  CHECK(back["t"].as<std::string>() == "x\n# y: \xef\xbf\xbd");  // U+FFFD for what is no UTF-8
}

TEST_CASE("safe names are labels, and different texts stay different") {
  for (const std::string& text : {std::string(), std::string("-"), std::string("A/b"), std::string(300, 'a'),
                                  std::string("../x\n"), std::string("q1")}) {
    const std::string name = generators::safe_name(text, 20);
    CAPTURE(name);
    CHECK(!name.empty());
    CHECK(name.size() <= 20);
    CHECK(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos);
    CHECK(name.front() != '-');
    CHECK(name.back() != '-');
  }
  CHECK(generators::safe_name("a/b") != generators::safe_name("a.b"));
  CHECK(generators::safe_name("qwen3-32b") == "qwen3-32b");
  CHECK(generators::fnv1a("") == 0xcbf29ce484222325u);  // the offset basis; "a" is of FNV's published test vectors
  CHECK(generators::fnv1a("a") == 0xaf63dc4c8601ec8cu);
}

TEST_CASE("a plan's hash is that of what it asks for") {
  PlanCase c = deepseek(Backend::vllm);
  const std::string hash = generators::plan_hash(c.plan);
  CHECK(hash.size() == 16);
  c.plan.prediction.emplace();
  CHECK(generators::plan_hash(c.plan) == hash);
  CHECK(generators::plan_hash(models::parse_plan(models::to_json(c.plan), "plan")) == hash);
  c.plan.pools[0].max_batch = 511;
  CHECK(generators::plan_hash(c.plan) != hash);
}

TEST_CASE("DeepSeek-V3 over two nodes: vLLM") {
  const PlanCase c = deepseek(Backend::vllm);
  const Json f = generators::flags_json(generators::vllm_flags(c.request(), c.plan.pools[0]));
  CHECK(f["tensor-parallel-size"] == 1);
  CHECK(f["data-parallel-size"] == 16);
  CHECK(f["enable-expert-parallel"] == true);
  CHECK(f["eplb-config"] == R"({"num_redundant_experts":16})");  // 272 slots for 256 experts
  CHECK(f["max-num-seqs"] == 32);                                // of one rank: 512 / 16
  CHECK(f["max-cudagraph-capture-size"] == 96);                  // each verifies 2 drafts and one token more
  CHECK(f["speculative-config"] == R"({"num_speculative_tokens":2,"method":"mtp"})");
  CHECK(f["kv-cache-dtype"] == "fp8");
  CHECK(!f.contains("quantization"));  // the checkpoint is in fp8 already
  CHECK(f["max-model-len"] == 5532);   // 1.1 x (4000 + 1000) + 32
  CHECK(f["gpu-memory-utilization"].get<double>() ==
        doctest::Approx(0.9).epsilon(0.002));  // what the blocks were made of
  const auto files = generators::generate(c.request(), {"vllm"});
  const std::string script = text_of(files, "vllm/worker.sh");
  CHECK(script.find("--data-parallel-size-local \"$local_ranks\"") != std::string::npos);
  CHECK(script.find("--headless --data-parallel-start-rank") != std::string::npos);
  CHECK(script.find("HEAD_ADDR:?") != std::string::npos);
}

TEST_CASE("DeepSeek-V3 over two nodes: SGLang, before and after its flags were renamed") {
  PlanCase c = deepseek(Backend::sglang);
  const auto at = [&](const char* version) {
    c.settings["engine-version"] = version;
    return line(generators::sglang_flags(c.request(), c.plan.pools[0]));
  };
  const std::string now = at("0.5.23"), before = at("0.5.15"), first = at("0.5.9");
  CHECK(now.find("--tp-size 16 --attn-dp-size 16 --ep-size 16 ") != std::string::npos);
  CHECK(before.find("--tp-size 16 --dp-size 16 --enable-dp-attention --ep-size 16 ") != std::string::npos);
  CHECK(now.find("--cuda-graph-max-bs-decode 32 ") != std::string::npos);
  CHECK(before.find("--cuda-graph-max-bs-decode 32 ") != std::string::npos);
  CHECK(first.find("--cuda-graph-max-bs 32 ") != std::string::npos);
  CHECK(now.find("--max-running-requests 512 ") != std::string::npos);  // of the instance, as SGLang divides it
  CHECK(now.find("--chunked-prefill-size 131072 ") != std::string::npos);
  CHECK(now.find("--speculative-algorithm EAGLE --speculative-num-steps 2 --speculative-eagle-topk 1 "
                 "--speculative-num-draft-tokens 3 ") != std::string::npos);
  CHECK(now.find("--enable-eplb --ep-num-redundant-experts 16 ") != std::string::npos);
  c.settings.clear();
  CHECK(text_of(generators::generate(c.request(), {"sglang"}), "sglang/worker.sh").find("--node-rank \"$NODE_RANK\"") !=
        std::string::npos);
}

TEST_CASE("DeepSeek-V3 over two nodes: TensorRT-LLM") {
  PlanCase c = deepseek(Backend::trtllm);
  const Json o = generators::trtllm_options(c.request(), c.plan.pools[0]);
  CHECK(o["enable_attention_dp"] == true);
  CHECK(o["moe_config"]["load_balancer"]["num_slots"] == 272);
  CHECK(o["cuda_graph_config"]["max_batch_size"] == 32);
  CHECK(o["speculative_config"] == Json{{"decoding_type", "MTP"}, {"num_nextn_predict_layers", 2}});
  CHECK(line(generators::trtllm_flags(c.request(), c.plan.pools[0]))
            .find("--tp_size 16 --pp_size 1 --max_batch_size 32 --max_num_tokens 8192 ") != std::string::npos);
  c.plan.pools[0].parallelism = {2, 1, 8, 1, 16};
  CHECK_THROWS_WITH_AS(generators::trtllm_flags(c.request(), c.plan.pools[0]), Contains("tp must be 1"), core::Error);
}

TEST_CASE("what an engine can't do is refused with the reason") {
  PlanCase c = deepseek(Backend::vllm);
  c.plan.pools[0].parallelism = {1, 1, 16, 2, 8};
  CHECK_THROWS_WITH_AS(generators::vllm_flags(c.request(), c.plan.pools[0]), Contains("moe_tp 2"), core::Error);
  c = deepseek(Backend::vllm);
  c.plan.pools[0].kv_blocks *= 3;
  CHECK_THROWS_WITH_AS(generators::vllm_flags(c.request(), c.plan.pools[0]), Contains("lower kv_blocks"), core::Error);
  c = deepseek(Backend::vllm);
  c.precision.moe = c.precision.gemm = c.precision.attention_gemm = core::Dtype::nvfp4;
  CHECK_THROWS_WITH_AS(generators::vllm_flags(c.request(), c.plan.pools[0]), Contains("--set model-path="),
                       core::Error);
  c.settings["model-path"] = "nvidia/DeepSeek-V3-NVFP4";
  CHECK_NOTHROW(generators::vllm_flags(c.request(), c.plan.pools[0]));
  c.settings["model-path"] = "--port=1";
  CHECK_THROWS_WITH_AS(generators::generate(c.request(), {"vllm"}), Contains("begins as a flag"), core::Error);
  CHECK_THROWS_WITH_AS(generators::generate(c.request(), {"sglang"}), Contains("--backend sglang"), core::Error);
  for (const char* version : {"0.14.9", "0.34.0", "1.0", "x", "-1.2", "0", "99999999999999"}) {
    c = deepseek(Backend::vllm);
    c.settings["engine-version"] = version;
    CHECK_THROWS_WITH_AS(generators::vllm_flags(c.request(), c.plan.pools[0]), Contains("--set engine-version"),
                         core::Error);
  }
  for (const char* version : {"0.15.0", "0.33", "v0.33.2", "0.33.0.post1"}) {
    c.settings["engine-version"] = version;
    CHECK_NOTHROW(generators::vllm_flags(c.request(), c.plan.pools[0]));
  }
}

TEST_CASE("slurm: a job of two kinds of nodes, and a runtime's worker over two, are refused") {
  PlanCase c = tests::random_case(1, models::Backend::drydock);
  for (uint64_t seed = 1; c.plan.mode != models::Mode::disagg || c.plan.pools[0].parallelism.gpus() > 4 ||
                          c.plan.pools[1].parallelism.gpus() > 4;
       ++seed)
    c = tests::random_case(seed, models::Backend::drydock);
  c.settings.clear();
  CHECK(!generators::generate(c.request(), {"slurm"}).empty());
  PlanCase two = c;
  two.systems["h100_sxm"] = models::find_system("h100_sxm");
  two.plan.pools[0].system = "h100_sxm";
  CHECK_THROWS_WITH_AS(generators::generate(two.request(), {"slurm"}), Contains("nodes are of one kind"), core::Error);
  c.plan.pools[1].parallelism = {16, 1, 1, 1, 1};
  c.plan.pools[1].system = "h200_sxm", c.plan.pools[0].system = "h200_sxm";
  c.systems["h200_sxm"] = models::find_system("h200_sxm");
  CHECK_THROWS_WITH_AS(generators::generate(c.request(), {"slurm"}), Contains("takes 2 nodes"), core::Error);
}

TEST_CASE("unknown targets and settings are told with the known ones") {
  PlanCase c = deepseek(Backend::vllm);
  CHECK_THROWS_WITH_AS(generators::generate(c.request(), {"vlm"}), Contains("did you mean 'vllm'?"), core::Error);
  c.settings["model-pth"] = "x";
  CHECK_THROWS_WITH_AS(generators::generate(c.request(), {"vllm"}), Contains("did you mean 'model-path'?"),
                       core::Error);
}

TEST_CASE("pools that fit one node together share it, GPUs apart") {
  PlanCase c = deepseek(Backend::vllm);
  c.architecture = models::find_model("Qwen/Qwen3-32B");
  c.precision = c.architecture.precision;
  c.plan.speculative.clear();
  c.plan.experts = {};
  c.plan.mode = models::Mode::disagg;
  c.plan.pools = {{models::Role::prefill, "h200_sxm", {1, 1, 1, 1, 1}, 3, 4, 8192},
                  {models::Role::decode, "h200_sxm", {4, 1, 1, 1, 1}, 1, 64, 8192}};
  const auto files = generators::generate(c.request(), {"vllm", "slurm"});
  const std::string decode = text_of(files, "vllm/decode.sh"), router = text_of(files, "vllm/router.sh");
  CHECK(decode.find("first=$((3 + (REPLICA % 2) * 4))") != std::string::npos);  // after the prefill pool's three
  CHECK(router.find("$(addresses prefill 3 8200 8)") != std::string::npos);
  CHECK(text_of(files, "slurm/job.sbatch").find("#SBATCH --nodes=1\n") != std::string::npos);
  c.plan.pools[0].replicas = 5;  // 9 GPUs: two nodes
  const std::string job = text_of(generators::generate(c.request(), {"slurm"}), "slurm/job.sbatch");
  CHECK(job.find("#SBATCH --nodes=2\n") != std::string::npos);
  CHECK(job.find("first=$((1 + replica / 2))") != std::string::npos);
  c.settings["account"] = "x\n#SBATCH --wrap=evil";
  CHECK_THROWS_WITH_AS(generators::generate(c.request(), {"slurm"}), Contains("--set account"), core::Error);
}

TEST_CASE("files are written all or none, and kept unless forced") {
  const PlanCase c = deepseek(Backend::vllm);
  const auto files = generators::generate(c.request(), {"vllm"});
  const tests::Scratch dir;
  const std::filesystem::path out = dir.path() / "out";
  generators::write_files(files, out, false);
  CHECK((std::filesystem::status(out / "vllm/worker.sh").permissions() & std::filesystem::perms::owner_exec) !=
        std::filesystem::perms::none);
  generators::write_files(files, out, false);  // the same again
  std::ofstream(out / "vllm/worker.yaml") << "mine\n";
  std::filesystem::remove(out / "vllm/worker.sh");
  CHECK_THROWS_WITH_AS(generators::write_files(files, out, false), Contains("--force replaces it"), core::Error);
  CHECK(!std::filesystem::exists(out / "vllm/worker.sh"));
  CHECK(core::read_file(out / "vllm/worker.yaml") == "mine\n");
  generators::write_files(files, out, true);
  CHECK(core::read_file(out / "vllm/worker.yaml") == text_of(files, "vllm/worker.yaml"));
  int entries = 0;
  for (const auto& entry : std::filesystem::directory_iterator(out)) entries += !entry.path().filename().empty();
  CHECK(entries == 3);  // vllm, README.md, manifest.json: no staging left
  std::filesystem::create_directories(dir.path() / "blocked/vllm/worker.sh");
  CHECK_THROWS_WITH_AS(generators::write_files(files, dir.path() / "blocked", true), Contains("is a folder"),
                       core::Error);
}

TEST_CASE("drift names the file, the value, what was expected and what is there") {
  PlanCase c = deepseek(Backend::sglang);
  c.settings["engine-version"] = "0.5.22";
  const auto files = generators::generate(c.request(), {"sglang", "bench"});
  const tests::Scratch dir;
  generators::write_files(files, dir.path(), false);
  const generators::Manifest manifest = generators::read_manifest(dir.path());
  CHECK(manifest.targets == std::vector<std::string>{"sglang", "bench"});
  CHECK(manifest.settings == c.settings);
  CHECK(generators::drift(files, dir.path()).empty());
  const auto replace = [&](const char* file, const std::string& from, const std::string& to) {
    std::string text = core::read_file(dir.path() / file);
    REQUIRE(text.find(from) != std::string::npos);
    text.replace(text.find(from), from.size(), to);
    std::ofstream(dir.path() / file) << text;
  };
  replace("sglang/worker.sh", "--max-running-requests 512", "--max-running-requests 64");
  replace("bench/deployment.json", "\"isl\": 4400", "\"isl\": 44");
  std::filesystem::remove(dir.path() / "bench/to_csv.py");
  const auto found = generators::drift(files, dir.path());
  REQUIRE(found.size() == 3);
  CHECK(found[0].file == "sglang/worker.sh");
  CHECK(found[0].where == "--max-running-requests");
  CHECK(found[0].expected == "--max-running-requests 512");
  CHECK(found[0].found == "--max-running-requests 64");
  CHECK(found[1].file == "bench/to_csv.py");
  CHECK(found[1].found == "missing");
  CHECK(found[2].where == "columns.isl");
  CHECK(found[2].found == "44");
  // Lines that are there twice, once too few, or in another order; a second value of a flag.
  const std::string script = text_of(files, "bench/compare.sh");
  const size_t start = script.find("python3");
  REQUIRE(start != std::string::npos);
  const std::string line = script.substr(start, script.find('\n', start) + 1 - start);
  const auto drift_of = [&](const std::string& text) {
    generators::write_files(files, dir.path(), true);
    std::ofstream(dir.path() / "bench/compare.sh") << text;
    return generators::drift(files, dir.path());
  };
  CHECK(drift_of(script).empty());
  const auto doubled = drift_of(script + line);
  REQUIRE(doubled.size() == 1);
  CHECK(doubled[0].found == "2 x " + doubled[0].expected);
  const auto swapped = drift_of("#!/usr/bin/env bash\n" + line + std::string(script).erase(start, line.size()));
  REQUIRE(swapped.size() == 1);
  CHECK(swapped[0].where == "order");
  drift_of(script);
  replace("sglang/worker.sh", "--max-running-requests 512",
          "--max-running-requests 512 \\\n  --max-running-requests 64");
  const auto second = generators::drift(files, dir.path());
  REQUIRE(second.size() == 1);
  CHECK(second[0].expected == "absent");
  CHECK(second[0].found == "--max-running-requests 64");
  // Files of anyone's: bombs and broken ones are told, not followed.
  for (const char* text : {"&a [*a, *a]\n", "a: [\n", "a: &a {b: *a}\n", "\x01"}) {
    PlanCase v = deepseek(Backend::vllm);
    const auto wanted = generators::generate(v.request(), {"vllm"});
    const tests::Scratch other;
    generators::write_files(wanted, other.path(), false);
    std::ofstream(other.path() / "vllm/worker.yaml") << text;
    CHECK(!generators::drift(wanted, other.path()).empty());
  }
}

TEST_CASE("manifests of others are refused by field") {
  const tests::Scratch dir;
  CHECK_THROWS_AS(generators::read_manifest(dir.path()), core::Error);
  dir.write("manifest.json", R"({"schema": "drydock.files", "version": 2, "targets": [], "settings": {}})");
  CHECK_THROWS_WITH_AS(generators::read_manifest(dir.path()), Contains("newer than this program"), core::Error);
  dir.write("manifest.json", R"({"schema": "drydock.files", "version": 1, "targets": [1], "settings": {}})");
  CHECK_THROWS_WITH_AS(generators::read_manifest(dir.path()), Contains("'targets'"), core::Error);
}
