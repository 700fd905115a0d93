#include <doctest/doctest.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "generators/engine_figures.h"
#include "tests/effort.h"
#include "tests/generated_files.h"
#include "tests/random_plans.h"
#include "tests/run.h"

using namespace drydock;
using generators::OutputFile;
using models::Backend;
using tests::find_file;
using tests::has_program;
using tests::PlanCase;
using tests::put;
using tests::runs;

namespace {

// The value of a flag in a script that a line is given to, "" for one without; nullopt: the flag is not there.
std::optional<std::string> flag_value(const std::string& script, const std::string& flag) {
  for (size_t at = 0; (at = script.find("  " + flag, at)) != std::string::npos; ++at) {
    const size_t begin = at + 2 + flag.size();
    if (script[begin] == '\n') return "";
    if (script[begin] != ' ') continue;
    std::string rest = script.substr(begin + 1, script.find('\n', begin) - begin - 1);
    if (rest.ends_with(" \\")) rest.resize(rest.size() - 2);
    return rest == "\\" ? "" : rest;
  }
  return std::nullopt;
}

// Blocks that the engine makes of a share of memory: at least the plan's, and of what rounding to a thousandth adds.
void check_blocks(const PlanCase& c, const models::Pool& pool, double kv_bytes, double rounding_bytes) {
  const auto request = c.request();
  const generators::EngineFigures f = generators::engine_figures(request, pool);
  const double want = f.kv, slack = 1e-6 * f.memory;
  CHECK(kv_bytes >= want - slack);
  CHECK(kv_bytes <= want + rounding_bytes + slack);
}

void check_vllm(const PlanCase& c, const std::vector<OutputFile>& files) {
  for (const models::Pool& pool : c.plan.pools) {
    const OutputFile* file = find_file(files, "vllm/" + std::string(models::name(pool.role)) + ".yaml");
    REQUIRE(file);
    const YAML::Node y = YAML::Load(file->text);
    const models::Parallelism& p = pool.parallelism;
    const auto f = generators::engine_figures(c.request(), pool);
    const auto nested = [&](const char* key) { return core::parse_json(y[key].as<std::string>(), key); };
    CHECK(y["tensor-parallel-size"].as<int>() == p.tp);
    CHECK(y["pipeline-parallel-size"].as<int>(1) == p.pp);
    CHECK(y["data-parallel-size"].as<int>(1) == p.attention_dp);
    CHECK(y["enable-expert-parallel"].as<bool>(false) == (p.ep > 1));
    CHECK(y["max-num-seqs"].as<int64_t>() * p.attention_dp == pool.max_batch);
    CHECK(y["max-num-batched-tokens"].as<int64_t>() == pool.max_tokens);
    CHECK(y["kv-cache-dtype"].as<std::string>() == (c.precision.kv == core::Dtype::fp8 ? "fp8" : "bfloat16"));
    CHECK(y["max-model-len"].as<double>() >=
          static_cast<double>(c.plan.workload.isl + c.plan.workload.osl) * c.plan.workload.longest);
    check_blocks(c, pool, y["gpu-memory-utilization"].as<double>() * f.memory - f.fixed, f.memory / 1000);
    if (f.redundant > 0)
      CHECK(nested("eplb-config")["num_redundant_experts"].get<int64_t>() +
                generators::routed_experts(c.architecture) ==
            c.plan.experts.slots);
    if (f.drafts > 0) CHECK(nested("speculative-config")["num_speculative_tokens"].get<int64_t>() == f.drafts);
  }
}

void check_sglang(const PlanCase& c, const std::vector<OutputFile>& files) {
  for (const models::Pool& pool : c.plan.pools) {
    const OutputFile* file = find_file(files, "sglang/" + std::string(models::name(pool.role)) + ".sh");
    REQUIRE(file);
    const auto number = [&](const char* flag) { return std::stod(flag_value(file->text, flag).value_or("-1")); };
    const models::Parallelism& p = pool.parallelism;
    const auto f = generators::engine_figures(c.request(), pool);
    CHECK(number("--tp-size") == p.tp * p.attention_dp);
    CHECK(number("--max-running-requests") == static_cast<double>(pool.max_batch));
    CHECK(number("--chunked-prefill-size") == static_cast<double>(pool.max_tokens * p.attention_dp));
    CHECK(number("--max-total-tokens") == static_cast<double>(pool.kv_blocks * models::kKvBlockTokens));
    if (p.attention_dp > 1) CHECK(number("--attn-dp-size") == p.attention_dp);
    if (p.ep > 1) CHECK(number("--ep-size") == p.ep);
    check_blocks(c, pool, number("--mem-fraction-static") * f.memory - f.weights, f.memory / 1000);
  }
}

void check_trtllm(const PlanCase& c, const std::vector<OutputFile>& files) {
  for (const models::Pool& pool : c.plan.pools) {
    const std::string base = "trtllm/" + std::string(models::name(pool.role));
    const OutputFile *script = find_file(files, base + ".sh"), *options = find_file(files, base + ".yaml");
    REQUIRE(script);
    REQUIRE(options);
    const auto number = [&](const char* flag) { return std::stod(flag_value(script->text, flag).value_or("-1")); };
    const YAML::Node y = YAML::Load(options->text);
    const models::Parallelism& p = pool.parallelism;
    const auto f = generators::engine_figures(c.request(), pool);
    CHECK(number("--tp_size") == p.tp * p.attention_dp);
    CHECK(number("--pp_size") == p.pp);
    CHECK(number("--max_batch_size") * p.attention_dp == static_cast<double>(pool.max_batch));
    CHECK(number("--max_num_tokens") == static_cast<double>(pool.max_tokens));
    CHECK(y["enable_attention_dp"].as<bool>() == (p.attention_dp > 1));
    CHECK(y["kv_cache_config"]["max_tokens"].as<int64_t>() == pool.kv_blocks * models::kKvBlockTokens);
    check_blocks(c, pool, y["kv_cache_config"]["free_gpu_memory_fraction"].as<double>() * (f.memory - f.fixed),
                 (f.memory - f.fixed) / 1000);
    if (f.redundant > 0) CHECK(y["moe_config"]["load_balancer"]["num_slots"].as<int>() == c.plan.experts.slots);
  }
}

void check_parses(const OutputFile& file) {
  CAPTURE(file.path);
  CHECK(file.path.find("..") == std::string::npos);
  CHECK(!file.path.starts_with("/"));
  CHECK(!file.what.empty());
  if (file.path.ends_with(".json")) CHECK(core::parse_json(file.text, file.path).is_object());
  if (file.path.ends_with(".yaml") && file.path.find("/templates/") == std::string::npos)
    for (const YAML::Node& document : YAML::LoadAll(file.text)) CHECK(document.IsMap());
  if (file.executable) CHECK(file.text.starts_with("#!/usr/bin/env bash\n"));
}

// The numbers that stand behind a key, whatever stands between: "max_batch": 8, --max_batch 8, - "--max-num-seqs"\n -
// "8".
std::set<std::string> numbers_after(const std::vector<OutputFile>& files, const std::string& key) {
  constexpr std::string_view kBetween = " \t\n\\\"':-";
  std::set<std::string> out;
  const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  for (const OutputFile& file : files)
    for (size_t at = 0; (at = file.text.find(key, at)) != std::string::npos;) {
      const bool begins = at == 0 || !in_word(file.text[at - 1]) || file.text[at - 1] == 'n';  // the n of "\\n"
      at += key.size();
      if (!begins || at >= file.text.size() || in_word(file.text[at])) continue;
      const size_t from = file.text.find_first_not_of(kBetween, at);
      if (from == std::string::npos) continue;
      out.insert(file.text.substr(from, file.text.find_first_not_of("0123456789.e", from) - from));
    }
  return out;
}

void check_told(const std::vector<OutputFile>& files, const std::string& key, double want) {
  const std::set<std::string> told = numbers_after(files, key);
  const bool found = std::any_of(told.begin(), told.end(), [&](const std::string& number) {
    return !number.empty() && std::abs(std::atof(number.c_str()) - want) <= 1e-12 * std::abs(want);
  });
  CHECK_MESSAGE(found, key << " is not " << want << " in any of " << told.size() << " places");
}

// Batch, tokens of a step and memory of every pool, in the words of the engine that runs it.
void check_figures(const PlanCase& c, Backend engine, const std::vector<OutputFile>& files) {
  for (const models::Pool& pool : c.plan.pools) {
    const auto told = [&](const char* key, auto want) { check_told(files, key, static_cast<double>(want)); };
    switch (engine) {
      case Backend::vllm:
        told("max-num-seqs", pool.max_batch / pool.parallelism.attention_dp);
        told("max-num-batched-tokens", pool.max_tokens);
        told("gpu-memory-utilization", generators::engine_figures(c.request(), pool).of_all());
        break;
      case Backend::sglang:
        told("--max-running-requests", pool.max_batch);
        told("--chunked-prefill-size", pool.max_tokens * pool.parallelism.attention_dp);
        told("--max-total-tokens", pool.kv_blocks * models::kKvBlockTokens);
        break;
      case Backend::trtllm:
        told("max_batch_size", pool.max_batch / pool.parallelism.attention_dp);
        told("max_num_tokens", pool.max_tokens);
        told("max_tokens", pool.kv_blocks * models::kKvBlockTokens);
        break;
      case Backend::drydock:
        told("max_batch", pool.max_batch);
        told("max_tokens", pool.max_tokens);
        told("kv_blocks", pool.kv_blocks);
    }
  }
}

// The engines that a target runs: a plan for another one it refuses.
std::vector<Backend> backends_of(std::string_view target) {
  if (target == "llm-d") return {Backend::vllm};
  if (target == "triton") return {Backend::trtllm};
  if (target == "dynamo" || target == "kserve") return {Backend::vllm, Backend::sglang, Backend::trtllm};
  for (const Backend backend : {Backend::vllm, Backend::sglang, Backend::trtllm})
    if (target == models::name(backend)) return {backend};
  return {Backend::drydock, Backend::vllm, Backend::sglang, Backend::trtllm};
}

void keep_settings(const generators::Target& target, PlanCase& c) {
  std::erase_if(c.settings, [&](const auto& setting) {
    return std::none_of(target.settings.begin(), target.settings.end(),
                        [&](const generators::Setting& s) { return s.key == setting.first; });
  });
}

void check_target(const generators::Target& target, const PlanCase& c, const std::vector<OutputFile>& files) {
  for (const OutputFile& file : files) check_parses(file);
  if (target.name == "vllm") check_vllm(c, files);
  if (target.name == "sglang") check_sglang(c, files);
  if (target.name == "trtllm") check_trtllm(c, files);
  const auto again = generators::generate(c.request(), {std::string(target.name)});
  REQUIRE(again.size() == files.size());
  for (size_t k = 0; k < files.size(); ++k) CHECK(again[k].text == files[k].text);
}

}  // namespace

// Every file of every sixteenth pair is parsed, which is what takes the time.
TEST_CASE("random plans: every target's files parse, and each figure leads back to the plan") {
  constexpr uint64_t kPlans = 2000 / tests::kLighter, kParsed = 16;
  const tests::Scratch scripts;
  int scripts_written = 0;
  for (const generators::Target& target : generators::targets()) {
    const std::string name(target.name);
    const std::vector<Backend> backends = backends_of(name);
    const bool watches = name == "grafana" || name == "alerts" || name == "bench";
    const bool runtimes = name == "k8s" || name == "drydock";
    // Its dozen objects take a third of all time; another test goes through 300 of its plans object by object.
    const uint64_t plans = name == "k8s" ? kPlans / 2 : kPlans;
    uint64_t written = 0;
    for (uint64_t i = 0; i < plans; ++i) {
      PlanCase c = tests::random_case(i, backends[i % backends.size()]);
      keep_settings(target, c);
      CAPTURE(i);
      CAPTURE(name);
      std::vector<OutputFile> files;
      try {
        files = generators::generate(c.request(), {name});
      } catch (const core::Error& error) {
        const std::string what = error.what();
        CHECK_MESSAGE((what.starts_with("target ") || what.starts_with("plan: ") || what.starts_with("pool '")), what);
        continue;
      }
      ++written;
      if (!watches) check_figures(c, runtimes ? Backend::drydock : c.plan.backend, files);
      if (i % kParsed == 0) check_target(target, c, files);
      if (i % 370 != 0) continue;
      for (const OutputFile& file : files)
        if (file.executable) put(scripts, std::to_string(scripts_written++) + ".sh", file.text);
    }
    CHECK_MESSAGE(written > plans / 5, name << ": " << written);
  }
  CHECK(scripts_written > 20 / tests::kLighter);
  CHECK(runs(scripts, "for f in *.sh; do bash -n \"$f\" || exit 1; done"));
  if (has_program("shellcheck"))
    CHECK(runs(scripts, "shellcheck -s bash $(ls *.sh | head -20)"));
  else
    MESSAGE("shellcheck is not installed: scripts are checked by bash -n alone");
}

TEST_CASE("TensorRT-LLM's router puts each instance's host in its place, whatever hosts are called") {
  PlanCase c = tests::random_case(1, Backend::trtllm);
  for (uint64_t seed = 1; c.plan.mode != models::Mode::agg || c.plan.pools[0].parallelism.gpus() != 1; ++seed)
    c = tests::random_case(seed, Backend::trtllm);
  c.plan.pools[0].replicas = 3;
  c.plan.speculative = "";
  const auto files = generators::generate(c.request(), {"trtllm"});
  const tests::Scratch folder;
  put(folder, "router.sh", find_file(files, "trtllm/router.sh")->text);
  put(folder, "nginx.conf", find_file(files, "trtllm/nginx.conf")->text);
  put(folder, "bin/nginx", "#!/bin/sh\ngrep 'server w' \"$2\" > servers\n");
  CHECK(
      runs(folder, "chmod +x bin/nginx; PATH=$PWD/bin:$PATH WORKER_HOSTS='worker-1 worker-2 worker-0' bash router.sh"));
  std::ifstream in(folder / "servers");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  std::erase(text, ' ');
  CHECK(text == "serverworker-1:8100;\nserverworker-2:8101;\nserverworker-0:8102;\n");
}

TEST_CASE("vLLM: attention-DP ranks that nodes can't hold whole are refused") {
  PlanCase c = tests::random_case(1, Backend::vllm);
  models::Pool pool = c.plan.pools.back();
  // Two ranks of 3 GPUs a node of 8: two nodes hold four ranks, not the five whose GPUs would fit.
  pool.role = models::Role::worker;
  pool.system = "h200_sxm";
  c.systems["h200_sxm"] = models::find_system("h200_sxm");
  c.architecture = models::find_model("Qwen/Qwen3-30B-A3B");
  c.precision = c.architecture.precision;
  pool.parallelism = {1, 3, 5, 5, 1};
  pool.max_batch = 50, pool.max_tokens = 2048, pool.kv_blocks = 200, pool.replicas = 1;
  c.plan.mode = models::Mode::agg;
  c.plan.model = c.architecture.name;
  c.plan.pools = {pool};
  c.plan.experts = {};
  c.plan.speculative = "";
  c.plan.precision = c.plan.kv_precision = "auto";
  CHECK_THROWS_WITH_AS(generators::generate(c.request(), {"vllm"}), doctest::Contains("hold 4 attention-DP ranks"),
                       core::Error);
}

TEST_CASE("systemd takes the units") {
  if (!has_program("systemd-analyze")) {
    MESSAGE("systemd-analyze is not installed: the units are not verified");
    return;
  }
  PlanCase c = tests::random_case(1, Backend::drydock);
  c.settings = {{"binary", "/bin/true"}};
  const tests::Scratch units;
  for (const OutputFile& file : generators::generate(c.request(), {"drydock"}))
    if (const size_t at = file.path.find("systemd/"); at != std::string::npos)
      put(units, file.path.substr(at + 8), file.text);
  CHECK(runs(units,
             "systemd-analyze --man=no verify $PWD/*.service $PWD/*.target > told 2>&1 && ! grep -q drydock told || { "
             "cat told; false; }"));
}
