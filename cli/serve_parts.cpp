#include "cli/serve_parts.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <thread>

#include "cli/load_options.h"
#include "core/error.h"
#include "runtime/byte_codec.h"
#include "runtime/cuda_engine.h"
#include "runtime/drafts.h"
#include "runtime/emulated_engine.h"
#include "runtime/tokenizer.h"
#include "simulator/engine_options.h"

namespace drydock::cli {
namespace {

namespace rt = runtime;

constexpr int64_t kMostFlagTokens = 1'000'000'000;

// A lease of prices must begin before the engine that uses them, and end after it.
struct LeasedPrice {
  simulator::Engine::PriceLease lease;
};
class LeasedEngine : LeasedPrice, public rt::EmulatedEngine {
 public:
  LeasedEngine(const simulator::Engine& engine, const rt::EmulatedOptions& options)
      : LeasedPrice{engine.lease_price()}, rt::EmulatedEngine(lease.price(), options) {}
};

simulator::Stage stage_of(models::Role role) {
  return role == models::Role::prefill  ? simulator::Stage::prefill
         : role == models::Role::decode ? simulator::Stage::decode
                                        : simulator::Stage::whole;
}

// Engines that compute have one rank and know their results at once.
scheduler::Policy policy_of(models::Backend backend, const models::Pool& pool) {
  switch (backend) {
    case models::Backend::sglang:
      return scheduler::sglang(pool.max_tokens, pool.max_batch);
    case models::Backend::trtllm:
      return scheduler::trtllm(pool.max_tokens, pool.max_batch);
    default:
      return scheduler::vllm(pool.max_tokens, pool.max_batch);
  }
}

double machine_gib() {
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGE_SIZE)) / (1 << 30);
}

core::Dtype computed_dtype(const std::string& engine, const std::string& precision) {
  if (precision == "fp32" && engine == "cpu") return core::Dtype::fp32;
  if (precision == "bf16" || precision == "auto") return core::Dtype::bf16;
  throw core::Error("engine " + engine + " computes in " + (engine == "cpu" ? "bf16 or fp32" : "bf16") +
                    ", and the plan's precision is " + precision.substr(0, 40));
}

// What a pool's scheduler is like where the engine computes.
void set_computed(simulator::PoolSpec& spec, const std::optional<scheduler::Speculation>& speculation) {
  spec.policy.result_delay = 0;
  spec.policy.chunks = true;
  spec.policy.prefix_cache = spec.stage != simulator::Stage::decode;
  if (speculation) spec.policy.decode_tokens = 1 + speculation->drafts();
}

}  // namespace

Serving::Serving(const ServeOptions& options, const Context& context)
    : options_(options),
      config_(rt::read_serve_config(options.plan)),
      resources_(context.database, context.calibration) {
  check_flags();
  if (config_.engine == "cuda") check_gpus();
  models::Plan& plan = config_.plan;
  const bool emulated = config_.engine == "emulated";
  const auto& architecture =
      resources_.model(emulated || options.model_path.empty() ? plan.model : options.model_path + "/config.json");
  max_context_ = architecture.max_context;
  speculation_ = simulator::speculation_of(plan.speculative, architecture, options.plan + ": field 'speculative'");
  // Made-up weights may go without a tokenizer: their text would mean nothing.
  const bool tokenizer =
      !options.model_path.empty() &&
      (options.seed_weights.empty() || std::filesystem::exists(options.model_path + "/tokenizer.json"));
  if (tokenizer)
    codec_ = rt::load_tokenizer(options.model_path);
  else
    codec_ = std::make_shared<rt::ByteCodec>(architecture.vocab);
  if (emulated)
    price();
  else if (config_.engine == "cpu")
    size_for_cpu();
  else
    size_for_cuda();
}

Serving::~Serving() = default;

void Serving::check_flags() {
  if (!options_.engine.empty()) config_.engine = options_.engine;
  if (config_.engine != "emulated" && config_.engine != "cpu" && config_.engine != "cuda")
    throw core::Error("--engine '" + config_.engine.substr(0, 40) + "': want emulated, cpu or cuda");
  const bool emulated = config_.engine == "emulated";
  if (!emulated && options_.model_path.empty())
    throw core::Error("--engine " + config_.engine + ": want --model-path with the model's folder");
  if (options_.time_scale != "0")
    time_scale_ = parse_positive(options_.time_scale, "--time-scale", 1e6);
  else
    time_scale_ = 0;
  if (!emulated && time_scale_ != 1) throw core::Error("--time-scale: goes with --engine emulated");
  if (!options_.first_gpu.empty() && config_.engine != "cuda")
    throw core::Error("--first-gpu: goes with --engine cuda");
  if (!options_.router.empty()) config_.plan.router_policy = options_.router;
  if (!scheduler::parse_router_policy(config_.plan.router_policy))
    throw core::Error("--router '" + config_.plan.router_policy.substr(0, 60) +
                      "': want round_robin, least_outstanding_tokens, power_of_two or kv_aware");
}

// Limits as `drydock simulate` has them, with prefix caches.
void Serving::price() {
  const models::Plan& plan = config_.plan;
  instances_ = configurator::instances_of(plan, resources_);
  simulator::Scenario scenario;
  scenario.hash_tokens = models::kKvBlockTokens;
  if (!options_.local_prefill.empty())
    scenario.local_prefill_tokens = parse_whole(options_.local_prefill, "--local-prefill", kMostFlagTokens);
  cluster_ = simulator::cluster_of(instances_.deployment, plan.workload, scenario, leases_);
  for (double* us : {&cluster_.transfer.fixed_us, &cluster_.transfer.us_per_token, &cluster_.transfer.us_per_block})
    *us *= time_scale_;
}

void Serving::size_for_cpu() {
  const models::Plan& plan = config_.plan;
  int workers = 0;
  for (const models::Pool& pool : plan.pools) workers += pool.replicas;
  // A quarter of the machine for all caches together: weights and the rest need theirs.
  const double gib = options_.kv_gib.empty() ? machine_gib() / 4 : parse_positive(options_.kv_gib, "--kv-gib", 1e6);
  const int64_t block_bytes =
      rt::kv_block_bytes(options_.model_path, computed_dtype("cpu", plan.precision), models::kKvBlockTokens);
  const auto room = static_cast<int64_t>(gib * (1 << 30) / workers / static_cast<double>(block_bytes));
  if (room < 1) throw core::Error("--kv-gib: not one block of KV fits; want more");
  if (!options_.local_prefill.empty())
    cluster_.local_prefill_tokens = parse_whole(options_.local_prefill, "--local-prefill", kMostFlagTokens);
  for (const models::Pool& pool : plan.pools) {
    simulator::PoolSpec spec;
    spec.stage = stage_of(pool.role);
    spec.replicas = pool.replicas;
    spec.policy = policy_of(plan.backend, pool);
    set_computed(spec, speculation_);
    spec.block_tokens = models::kKvBlockTokens;
    spec.kv_blocks = pool.kv_blocks > 0 ? std::min(pool.kv_blocks, room) : room;
    cluster_.pools.push_back(spec);
  }
}

// A GPU's KV cache is, as in the simulator, what the weights leave of its memory, and no more than the plan says.
void Serving::size_for_cuda() {
  price();
  const int64_t block_bytes = rt::kv_block_bytes(options_.model_path, core::Dtype::bf16, models::kKvBlockTokens);
  for (size_t p = 0; p < cluster_.pools.size(); ++p) {
    simulator::PoolSpec& pool = cluster_.pools[p];
    set_computed(pool, speculation_);
    if (pool.block_tokens != models::kKvBlockTokens)
      pool.kv_blocks = pool.kv_blocks * pool.block_tokens / models::kKvBlockTokens;
    pool.block_tokens = models::kKvBlockTokens;
    if (const int64_t planned = config_.plan.pools[p].kv_blocks; planned > 0)
      pool.kv_blocks = std::min(pool.kv_blocks, planned);
    if (options_.kv_gib.empty()) continue;
    const double gib = parse_positive(options_.kv_gib, "--kv-gib", 1e6);
    pool.kv_blocks = static_cast<int64_t>(gib * (1 << 30) / static_cast<double>(block_bytes));
    if (pool.kv_blocks < 1) throw core::Error("--kv-gib: not one block of KV fits; want more");
  }
}

int Serving::gpu_of(size_t at, int index) const {
  const int first =
      options_.first_gpu.empty() ? 0 : static_cast<int>(parse_whole(options_.first_gpu, "--first-gpu", 1023));
  if (!options_.role.empty()) return first;
  for (size_t p = 0; p < at; ++p) index += config_.plan.pools[p].replicas;
  return first + index;
}

// Before anything is made, so that what is missing is bad input.
void Serving::check_gpus() const {
  if (options_.role == "router") return;
  for (const models::Pool& pool : config_.plan.pools)
    if (const int ranks = pool.parallelism.gpus(); ranks != 1)
      throw core::Error(options_.plan + ": --engine cuda serves workers of one GPU, and a pool's have " +
                        std::to_string(ranks) + "; want tp, pp and attention_dp 1, and replicas for more GPUs");
  for (size_t p = 0; p < config_.plan.pools.size(); ++p)
    for (int i = 0; i < config_.plan.pools[p].replicas; ++i) rt::check_cuda(gpu_of(p, i));
}

rt::DispatcherSpec Serving::dispatcher() const {
  rt::DispatcherSpec out;
  out.pools.clear();
  int64_t longest = max_context_ > 0 ? max_context_ : kMostFlagTokens;
  for (const simulator::PoolSpec& pool : cluster_.pools) {
    out.pools.push_back({pool.stage, pool.replicas});
    longest = std::min(longest, pool.kv_blocks * pool.block_tokens - pool.policy.decode_tokens);
  }
  out.router = cluster_.router;
  out.router.policy = *scheduler::parse_router_policy(config_.plan.router_policy);
  out.router.block_tokens = models::kKvBlockTokens;
  out.local_prefill_tokens = cluster_.local_prefill_tokens;
  out.longest_sequence = longest;
  if (!options_.queue.empty()) out.most_waiting = parse_count(options_.queue, "--queue", 10'000'000);
  if (!options_.migrations.empty())
    out.migration_limit = static_cast<int>(parse_whole(options_.migrations, "--migrations", 1000));
  return out;
}

rt::WorkerSpec Serving::spec_of(size_t at, int index) const {
  const simulator::PoolSpec& pool = cluster_.pools[at];
  rt::WorkerSpec out;
  out.name = rt::worker_name(pool.stage, index);
  out.stage = pool.stage;
  out.policy = pool.policy;
  out.kv_blocks = pool.kv_blocks;
  out.block_tokens = pool.block_tokens;
  out.transfer = cluster_.transfer;
  if (speculation_ && pool.stage != simulator::Stage::prefill) add_drafts(out);
  return out;
}

void Serving::add_drafts(rt::WorkerSpec& spec) const {
  if (config_.engine == "emulated") {
    spec.drafts = [speculation = *speculation_](const rt::DraftQuestion& q) {
      return rt::emulated_drafts(speculation, q.seed, q.index, q.most);
    };
    return;
  }
  std::shared_ptr<rt::Drafter> drafter;
  if (speculation_->method == scheduler::DraftMethod::ngram)
    drafter = rt::make_ngram_drafter({});
  else
    throw core::Error(options_.plan + ": field 'speculative': engine " + config_.engine +
                      " drafts by ngram only, such as ngram:k=4,p=0.6");
  spec.drafts = [drafter](const rt::DraftQuestion& q) { return drafter->propose(q.attempt, q.tokens, q.most); };
  spec.forget_drafts = [drafter](rt::Attempt attempt) { drafter->forget(attempt); };
}

rt::EngineMaker Serving::engine_of(size_t at, int index) {
  const simulator::PoolSpec& pool = cluster_.pools[at];
  if (config_.engine == "emulated") {
    const rt::EmulatedOptions emulated{pool.ranks, time_scale_, true};
    const simulator::Engine* engine = instances_.deployment.parts[at].engine;
    return [engine, emulated] { return std::make_unique<LeasedEngine>(*engine, emulated); };
  }
  rt::EngineOptions computed;
  computed.dtype = computed_dtype(config_.engine, config_.plan.precision);
  computed.kv_blocks = pool.kv_blocks;
  computed.block_tokens = pool.block_tokens;
  if (!options_.threads.empty()) computed.threads = static_cast<int>(parse_count(options_.threads, "--threads", 1024));
  if (!options_.seed_weights.empty())
    computed.random_weights =
        static_cast<uint64_t>(parse_whole(options_.seed_weights, "--random-weights", int64_t{1} << 53));
  if (config_.engine == "cpu")
    return [path = options_.model_path, computed] { return rt::make_cpu_engine(path, computed); };
  computed.device = gpu_of(at, index);
  return [path = options_.model_path, computed] { return rt::open_cuda_engine(path, computed); };
}

std::vector<rt::LocalWorker> Serving::workers(const std::string& only) {
  std::vector<rt::LocalWorker> out;
  for (size_t p = 0; p < cluster_.pools.size(); ++p)
    for (int i = 0; i < cluster_.pools[p].replicas; ++i) {
      const std::string name = rt::worker_name(cluster_.pools[p].stage, i);
      if (only.empty() || name == only) out.push_back({spec_of(p, i), engine_of(p, i)});
    }
  if (out.empty()) throw core::Error("--role 'worker:" + only.substr(0, 60) + "': the plan has no worker of this name");
  return out;
}

}  // namespace drydock::cli
