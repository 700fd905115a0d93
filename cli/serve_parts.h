#pragma once
// From a plan to what serves it: the workers' limits and engines, the dispatcher's rules, the text codec.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "configurator/predict.h"
#include "runtime/local_fleet.h"
#include "runtime/serve_config.h"
#include "runtime/text_codec.h"
#include "simulator/simulation.h"

namespace drydock::cli {

// As typed; checked when the command runs, so that every error is one line naming its flag.
struct ServeOptions {
  std::string plan, engine, model_path, draft_model_path, time_scale = "1", kv_gib, threads;
  std::string host = "127.0.0.1", port = "8000", api_keys, log_level = "info", log_format = "json";
  std::string role, join, worker_listen, kv_host, drain_timeout = "30s", restarts = "10";
  std::string queue, migrations, local_prefill, router, served_name, seed_weights, first_gpu;
  bool processes = false;
};

// Holds what engines refer to: it must outlive them.
class Serving {
 public:
  // Throws core::Error naming file or flag.
  Serving(const ServeOptions& options, const Context& context);
  ~Serving();

  const runtime::ServeConfig& config() const { return config_; }
  runtime::DispatcherSpec dispatcher() const;
  // All workers of the deployment, or the one of this name.
  std::vector<runtime::LocalWorker> workers(const std::string& only = {});
  const runtime::TextCodec& codec() const { return *codec_; }

 private:
  void price();
  void size_for_cpu();
  void size_for_cuda();
  void check_flags();
  void check_gpus() const;
  runtime::WorkerSpec spec_of(size_t pool, int index) const;
  void add_drafts(runtime::WorkerSpec& spec) const;
  runtime::EngineMaker engine_of(size_t pool, int index);
  // The worker's GPU: --first-gpu's and on, pools in order; where the process has one worker, --first-gpu's.
  int gpu_of(size_t pool, int index) const;

  const ServeOptions& options_;
  runtime::ServeConfig config_;
  configurator::Resources resources_;
  configurator::Instances instances_;  // of the emulated engine
  std::vector<simulator::Engine::PriceLease> leases_;
  simulator::ClusterSpec cluster_;
  std::optional<scheduler::Speculation> speculation_;
  std::shared_ptr<const runtime::TextCodec> codec_;
  double time_scale_ = 1;
  int64_t max_context_ = 0;
};

}  // namespace drydock::cli
