#pragma once
// From a plan to what serves it: the workers' limits and engines, the dispatcher's rules, the text codec.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/serve_drafts.h"
#include "configurator/predict.h"
#include "runtime/local_fleet.h"
#include "runtime/serve_config.h"
#include "runtime/text_codec.h"
#include "simulator/simulation.h"

namespace drydock::cli {

// As typed; checked when the command runs, so that every error is one line naming its flag.
struct ServeOptions {
  std::string plan, engine, model_path, draft_model_path, overlap = "on", time_scale = "1", kv_gib, threads;
  std::string host = "127.0.0.1", port = "8000", api_keys, log_level = "info", log_format = "json";
  std::string role, join, worker_listen, kv_host, drain_timeout = "30s", restarts = "10";
  std::string queue, migrations, local_prefill, router, served_name, seed_weights, first_gpu;
  bool processes = false;
  bool json = false;  // where it serves, on stdout
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
  // Ranks, a process and on GPUs a device each, of every worker of a pool.
  int ranks(size_t pool) const;

 private:
  void price();
  void size_for_cpu();
  void size_for_cuda();
  void check_flags();
  void check_gpus() const;
  void check_computed() const;
  runtime::WorkerSpec spec_of(size_t pool, int index) const;
  void check_drafting();
  void add_drafts(runtime::LocalWorker& worker, size_t pool, int index) const;
  int64_t draft_block_bytes(const simulator::PoolSpec& pool) const;
  runtime::EngineMaker engine_of(size_t pool, int index) const;
  runtime::EngineOptions computed_options(size_t pool, int index) const;
  runtime::EngineMaker computing_engine(const std::string& path, const runtime::EngineOptions& options) const;
  // The worker's first GPU: --first-gpu's and on, pools in order; where the process has one worker, --first-gpu's.
  int gpu_of(size_t pool, int index) const;

  const ServeOptions& options_;
  runtime::ServeConfig config_;
  configurator::Resources resources_;
  configurator::Instances instances_;  // of the emulated engine
  std::vector<simulator::Engine::PriceLease> leases_;
  simulator::ClusterSpec cluster_;
  std::optional<scheduler::Speculation> speculation_;
  std::optional<DraftModel> draft_model_;
  std::shared_ptr<const runtime::TextCodec> codec_;
  double time_scale_ = 1;
  int64_t max_context_ = 0;
};

}  // namespace drydock::cli
