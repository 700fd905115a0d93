#include <doctest/doctest.h>

#include <array>
#include <cctype>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "generators/sglang_flags.h"
#include "generators/trtllm_options.h"
#include "generators/vllm_flags.h"
#include "tests/effort.h"
#include "tests/generated_files.h"
#include "tests/random_plans.h"

using namespace drydock;
using generators::OutputFile;
using models::Backend;
using tests::find_file;
using tests::PlanCase;

TEST_CASE("every flag is in the engine's own parser, in each version") {
  struct Engine {
    const char *file, *program;
    Backend backend;
    generators::Flags (*flags)(const generators::Request&, const models::Pool&);
  };
  const std::array<Engine, 3> engines = {{{"vllm", "vllm serve", Backend::vllm, generators::vllm_flags},
                                          {"sglang", "sglang.launch_server", Backend::sglang, generators::sglang_flags},
                                          {"trtllm", "trtllm-serve", Backend::trtllm, generators::trtllm_flags}}};
  for (const Engine& engine : engines) {
    const core::Json known =
        core::read_json(std::string(DRYDOCK_SOURCE_DIR) + "/tests/data/engine_flags/" + engine.file + ".json");
    const core::Json& program = known["programs"][engine.program];
    std::set<std::string> seen;
    for (size_t v = 0; v < known["versions"].size(); ++v)
      for (uint64_t seed = 0; seed < 120 / tests::kLighter; ++seed) {
        PlanCase c = tests::random_case(seed, engine.backend);
        c.settings["engine-version"] = known["versions"][v];
        for (const models::Pool& pool : c.plan.pools) try {
            for (const generators::Flag& flag : engine.flags(c.request(), pool)) {
              seen.insert(flag.name);
              CHECK_MESSAGE((program.contains(flag.name) && program[flag.name].get<std::string>()[v] == '1'),
                            engine.file << " " << c.settings["engine-version"] << " has no " << flag.name);
            }
          } catch (const core::Error&) {
          }
      }
    CHECK(seen.size() >= 8);
  }
}

TEST_CASE("the launchers' and clients' own words are known, too") {
  const std::string folder = std::string(DRYDOCK_SOURCE_DIR) + "/tests/data/engine_flags/";
  const auto check = [&](const std::string& text, const char* file, const char* program) {
    const core::Json known = core::read_json(folder + file + ".json")["programs"][program];
    int flags = 0;
    for (size_t at = 0; (at = text.find("--", at)) != std::string::npos; ++at) {
      size_t end = at + 2;
      while (end < text.size() &&
             (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '-' || text[end] == '_'))
        ++end;
      const std::string flag = text.substr(at, end - at);
      const bool word = at > 0 && (text[at - 1] == ' ' || text[at - 1] == '(');
      at = end;
      if (!word || flag.size() == 2) continue;
      ++flags;
      CHECK_MESSAGE(known.contains(flag), program << " has no " << flag);
      if (known.contains(flag)) CHECK(known[flag].get<std::string>().back() == '1');
    }
    CHECK(flags > 1);
  };
  const auto body = [](const OutputFile& file) { return file.text.substr(file.text.find("set -euo")); };
  for (uint64_t seed = 0; seed < 40; ++seed) {
    for (const Backend backend : {Backend::vllm, Backend::sglang, Backend::trtllm}) {
      PlanCase c = tests::random_case(seed, backend);
      const std::string name(models::name(backend));
      std::vector<OutputFile> files;
      try {
        files = generators::generate(c.request(), {name, "bench"});
      } catch (const core::Error&) {
        continue;
      }
      const OutputFile* bench = find_file(files, "bench/bench.sh");
      REQUIRE(bench);
      if (backend == Backend::vllm) check(body(*bench), "vllm", "vllm bench serve");
      if (backend == Backend::sglang) check(body(*bench), "sglang", "sglang.bench_serving");
      if (backend == Backend::trtllm) check(body(*bench), "trtllm", "benchmark_serving");
      const OutputFile* router = find_file(files, name + "/router.sh");
      if (router && backend == Backend::vllm) check(body(*router), "vllm-router", "vllm-router");
      if (router && backend == Backend::sglang) check(body(*router), "sglang-router", "sglang-router");
      const OutputFile* worker = find_file(files, name + "/" + std::string(models::name(c.plan.pools[0].role)) + ".sh");
      REQUIRE(worker);
      if (backend == Backend::vllm) check(body(*worker), "vllm", "vllm serve");
      if (backend == Backend::sglang) check(body(*worker), "sglang", "sglang.launch_server");
    }
  }
}
