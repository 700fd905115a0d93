// Writes the files of all targets for a few plans, for the tools that will read them: scripts/check_generated.
// usage: drydock_write_generated DIR
#include <cstdio>
#include <filesystem>
#include <memory>

#include "core/error.h"
#include "core/file.h"
#include "generators/planner_profile.h"
#include "tests/hostile_names.h"
#include "tests/random_plans.h"

using namespace drydock;

namespace {

// As smooth as real ones, and of no machine.
generators::PlannerProfile made_up_profile() {
  generators::PlannerProfile p;
  p.max_kv_tokens = 400'000;
  for (int64_t tokens = 128; tokens <= 8192; tokens *= 2) {
    p.prompt_tokens.push_back(tokens);
    p.ttft_ms.push_back(10 + 0.02 * static_cast<double>(tokens));
    p.prompt_tokens_per_s_gpu.push_back(static_cast<double>(tokens) / p.ttft_ms.back() * 1000);
  }
  for (double context = 512; context <= 8192; context *= 2)
    for (double batch = 1; batch * context < 400'000; batch *= 3) {
      p.kv_usage.push_back(batch * context / 400'000);
      p.context_tokens.push_back(context);
      p.itl_ms.push_back(6 + 0.05 * batch + 1e-5 * batch * context);
      p.output_tokens_per_s_gpu.push_back(batch / p.itl_ms.back() * 1000);
    }
  return p;
}

tests::PlanCase plan_case(const char* model, models::Backend backend, std::vector<models::Pool> pools) {
  tests::PlanCase c;
  c.plan.model = model;
  c.plan.precision = "fp8";
  c.architecture = models::find_model(model);
  c.precision = models::choose_precision(c.architecture, "auto");
  c.plan.backend = backend;
  c.plan.mode = pools.size() == 1 ? models::Mode::agg : models::Mode::disagg;
  c.plan.workload.isl = 4000;
  c.plan.workload.osl = 1000;
  c.plan.workload.rate = 10;
  c.plan.slo.ttft_ms = 1000;
  c.plan.slo.tpot_ms = 25;
  c.plan.slo.percentile = 95;
  for (models::Pool& pool : pools) {
    c.systems.emplace(pool.system, models::find_system(pool.system));
    pool.kv_blocks = tests::fitting_blocks(c, pool, 1) / 2;
  }
  c.plan.pools = std::move(pools);
  return c;
}

int write_case(const std::filesystem::path& folder, tests::PlanCase c,
               const std::map<std::string, std::string>& settings,
               const std::shared_ptr<const generators::PlannerProfile>& profile) {
  int written = 0;
  for (const generators::Target& target : generators::targets()) {
    c.settings.clear();
    for (const auto& [key, value] : settings)
      for (const generators::Setting& setting : target.settings)
        if (setting.key == key) c.settings[key] = value;
    generators::Request request = c.request();
    request.planner_profile = profile;
    try {
      for (const generators::OutputFile& file : target.files(request)) {
        const std::filesystem::path path = folder / std::string(target.name) / file.path;
        std::filesystem::create_directories(path.parent_path());
        core::write_file(path, file.text);
        ++written;
      }
    } catch (const core::Error& error) {
      std::printf("%s: %s: %s\n", folder.filename().c_str(), std::string(target.name).c_str(), error.what());
    }
  }
  return written;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: drydock_write_generated DIR\n"), 2;
  const std::filesystem::path out = argv[1];
  using models::Backend, models::Role;
  const auto profile = std::make_shared<const generators::PlannerProfile>(made_up_profile());
  const models::Pool agg{Role::worker, "h200_sxm", {2, 1, 1, 1, 1}, 3, 64, 8192};
  const models::Pool prefill{Role::prefill, "h200_sxm", {2, 1, 1, 1, 1}, 2, 4, 16384};
  const models::Pool decode{Role::decode, "h200_sxm", {4, 1, 1, 1, 1}, 1, 256, 1024};
  const models::Pool wide{Role::worker, "h200_sxm", {1, 1, 16, 1, 16}, 1, 512, 8192};
  const char *dense = "Qwen/Qwen3-32B", *moe = "deepseek-ai/DeepSeek-R1";
  int files = 0;
  for (int i = 0; i < models::kBackends; ++i) {
    const auto backend = static_cast<Backend>(i);
    const std::string name(models::name(backend));
    files += write_case(out / ("agg-" + name), plan_case(dense, backend, {agg}), {}, profile);
    files += write_case(out / ("disagg-" + name), plan_case(dense, backend, {prefill, decode}),
                        {{"api-version", "v1alpha1"}, {"namespace", "serving"}, {"metrics", "dynamo"}}, profile);
    files += write_case(out / ("wide-" + name), plan_case(moe, backend, {wide}), {{"name", "wide"}}, nullptr);
  }
  for (size_t i = 0; i < tests::hostile_names().size(); ++i) {
    const std::string& bad = tests::hostile_names()[i];
    tests::PlanCase c = plan_case(dense, static_cast<Backend>(i % models::kBackends), {agg});
    c.plan.model = bad;
    files += write_case(out / ("hostile-" + std::to_string(i)), c,
                        {{"image", bad},
                         {"namespace", bad},
                         {"secret", bad},
                         {"storage-class", bad},
                         {"model-claim", bad},
                         {"served-name", bad},
                         {"model-path", bad},
                         {"hf-secret", bad},
                         {"gpu-product", bad},
                         {"rule-label", bad}},
                        nullptr);
  }
  std::printf("%d files\n", files);
  return 0;
}
