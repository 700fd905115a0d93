#pragma once
// Models that the GPU's kernels take: heads of 64 numbers; and how far answers of two engines are apart.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>

#include "core/file.h"
#include "core/json.h"
#include "runtime/cpu_engine.h"

namespace drydock::tests {

// A folder with the config.json of a golden model, wider.
class WideModel {
 public:
  explicit WideModel(const std::string& golden)
      : dir_(std::filesystem::temp_directory_path() / ("drydock_wide_" + golden + std::to_string(::getpid()))) {
    core::Json config =
        core::read_json(std::filesystem::path(DRYDOCK_SOURCE_DIR) / "tests/golden" / golden / "config.json");
    config["hidden_size"] = 128, config["head_dim"] = 64, config["num_hidden_layers"] = 2;
    if (config.contains("moe_intermediate_size")) config["moe_intermediate_size"] = 64;
    std::filesystem::create_directories(dir_);
    core::write_file(dir_ / "config.json", config.dump());
  }
  ~WideModel() {
    std::error_code gone;
    std::filesystem::remove_all(dir_, gone);
  }
  WideModel(const WideModel&) = delete;
  WideModel& operator=(const WideModel&) = delete;

  const std::filesystem::path& dir() const { return dir_; }

  runtime::EngineOptions options() const {
    runtime::EngineOptions out;
    out.dtype = core::Dtype::bf16;
    out.kv_blocks = 40;
    out.block_tokens = 16;
    out.threads = 1;
    out.random_weights = 7;
    return out;
  }

 private:
  std::filesystem::path dir_;
};

// Of tokens' log-probabilities, all of them: root mean square.
inline double distance(runtime::GeneratedToken a, runtime::GeneratedToken b) {
  const auto by_id = [](const runtime::TokenLogprob& x, const runtime::TokenLogprob& y) { return x.token < y.token; };
  std::sort(a.top.begin(), a.top.end(), by_id);
  std::sort(b.top.begin(), b.top.end(), by_id);
  double sum = 0;
  for (size_t i = 0; i < a.top.size(); ++i) sum += std::pow(double{a.top[i].logprob} - double{b.top[i].logprob}, 2);
  return std::sqrt(sum / static_cast<double>(a.top.size()));
}

}  // namespace drydock::tests
