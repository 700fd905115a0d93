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
#include "runtime/emulated_engine.h"
#include "runtime/ranked_engine.h"
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
  if (config_.engine != "emulated") check_computed();
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
  check_drafting();
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
  if (options_.overlap != "on" && options_.overlap != "off")
    throw core::Error("--overlap '" + options_.overlap.substr(0, 40) + "': want on or off");
  if (!options_.draft_model_path.empty() && emulated)
    throw core::Error("--draft-model-path: goes with --engine cpu or cuda");
  if (!options_.draft_model_path.empty()) config_.draft_model_path = options_.draft_model_path;
  if (!options_.router.empty()) config_.plan.router_policy = options_.router;
  if (!scheduler::parse_router_policy(config_.plan.router_policy))
    throw core::Error("--router '" + config_.plan.router_policy.substr(0, 60) +
                      "': want round_robin, least_outstanding_tokens, power_of_two or kv_aware");
}

void Serving::check_drafting() {
  if (config_.engine == "emulated") return;
  if (speculation_)
    draft_model_ = check_drafts({.plan = options_.plan,
                                 .engine = config_.engine,
                                 .path = config_.draft_model_path,
                                 .target_path = options_.model_path,
                                 .speculation = *speculation_,
                                 .dtype = computed_dtype(config_.engine, config_.plan.precision),
                                 .random_weights = !options_.seed_weights.empty()},
                                *codec_);
  else if (!config_.draft_model_path.empty())
    throw core::Error(
        "--draft-model-path: the plan drafts nothing; want its field 'speculative', such as draft:k=4,p=0.7");
}

// The draft model caches the same sequences in as many blocks of its own, where answers are made.
int64_t Serving::draft_block_bytes(const simulator::PoolSpec& pool) const {
  return draft_model_ && pool.stage != simulator::Stage::prefill ? draft_model_->kv_block_bytes : 0;
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
  if (!options_.local_prefill.empty())
    cluster_.local_prefill_tokens = parse_whole(options_.local_prefill, "--local-prefill", kMostFlagTokens);
  for (const models::Pool& pool : plan.pools) {
    simulator::PoolSpec spec;
    spec.stage = stage_of(pool.role);
    spec.replicas = pool.replicas;
    spec.policy = policy_of(plan.backend, pool);
    set_computed(spec, speculation_);
    spec.block_tokens = models::kKvBlockTokens;
    const auto room =
        static_cast<int64_t>(gib * (1 << 30) / workers / static_cast<double>(block_bytes + draft_block_bytes(spec)));
    if (room < 1) throw core::Error("--kv-gib: not one block of KV fits; want more");
    spec.kv_blocks = pool.kv_blocks > 0 ? std::min(pool.kv_blocks, room) : room;
    cluster_.pools.push_back(spec);
  }
}

// A GPU's KV cache is, as in the simulator, what the weights leave of its memory, and no more than the plan says.
void Serving::size_for_cuda() {
  price();
  for (size_t p = 0; p < cluster_.pools.size(); ++p) {
    simulator::PoolSpec& pool = cluster_.pools[p];
    const int64_t block_bytes =  // of one GPU
        rt::kv_block_bytes(options_.model_path, core::Dtype::bf16, models::kKvBlockTokens) / ranks(p);
    set_computed(pool, speculation_);
    if (pool.block_tokens != models::kKvBlockTokens)
      pool.kv_blocks = pool.kv_blocks * pool.block_tokens / models::kKvBlockTokens;
    pool.block_tokens = models::kKvBlockTokens;
    const int64_t draft_bytes = draft_block_bytes(pool), all_bytes = block_bytes + draft_bytes;
    if (draft_bytes > 0) {
      const double weights = 2 * models::count_parameters(resources_.model(draft_model_->path + "/config.json")).total;
      const double room = static_cast<double>(pool.kv_blocks) * static_cast<double>(block_bytes) - weights;
      pool.kv_blocks = static_cast<int64_t>(room / static_cast<double>(all_bytes));
      if (pool.kv_blocks < 1)
        throw core::Error("--draft-model-path: the model leaves a GPU no memory for KV; want a smaller one");
    }
    if (const int64_t planned = config_.plan.pools[p].kv_blocks; planned > 0)
      pool.kv_blocks = std::min(pool.kv_blocks, planned);
    if (options_.kv_gib.empty()) continue;
    const double gib = parse_positive(options_.kv_gib, "--kv-gib", 1e6);
    pool.kv_blocks = static_cast<int64_t>(gib * (1 << 30) / static_cast<double>(all_bytes));
    if (pool.kv_blocks < 1) throw core::Error("--kv-gib: not one block of KV fits; want more");
  }
}

int Serving::gpu_of(size_t at, int index) const {
  const int first =
      options_.first_gpu.empty() ? 0 : static_cast<int>(parse_whole(options_.first_gpu, "--first-gpu", 1023));
  if (!options_.role.empty()) return first;
  int before = index * ranks(at);
  for (size_t p = 0; p < at; ++p) before += config_.plan.pools[p].replicas * ranks(p);
  return first + before;
}

int Serving::ranks(size_t pool) const {
  return config_.engine == "emulated" ? 1 : config_.plan.pools[pool].parallelism.tp;
}

// What engines that compute can be divided into.
void Serving::check_computed() const {
  for (const models::Pool& pool : config_.plan.pools) {
    const models::Parallelism& p = pool.parallelism;
    if (p.pp != 1 || p.attention_dp != 1 || p.ep != 1)
      throw core::Error(
          fmt::format("{}: a pool of role {} has pp {}, attention_dp {} and ep {}; engine {} computes with "
                      "tp alone: want 1 for each",
                      options_.plan, models::name(pool.role), p.pp, p.attention_dp, p.ep, config_.engine));
    if (config_.engine == "cpu" && p.tp > kernels::cpu::kMostSharedRanks)
      throw core::Error(fmt::format("{}: field 'tp': {} ranks of a worker; engine cpu has {} at most", options_.plan,
                                    p.tp, kernels::cpu::kMostSharedRanks));
    if (p.tp > 1) rt::check_ranks(options_.model_path, p.tp);
  }
}

// Before anything is made, so that what is missing is bad input.
void Serving::check_gpus() const {
  if (options_.role == "router") return;
  for (size_t p = 0; p < config_.plan.pools.size(); ++p)
    for (int i = 0; i < config_.plan.pools[p].replicas; ++i) {
      const std::string role = "worker:" + rt::worker_name(stage_of(config_.plan.pools[p].role), i);
      if (!options_.role.empty() && options_.role != role) continue;
      for (int rank = 0; rank < ranks(p); ++rank) rt::check_cuda(gpu_of(p, i) + rank);
    }
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
  out.overlap = options_.overlap == "on";
  return out;
}

void Serving::add_drafts(rt::LocalWorker& worker, size_t at, int index) const {
  const simulator::PoolSpec& pool = cluster_.pools[at];
  if (!speculation_ || pool.stage == simulator::Stage::prefill) return;
  if (config_.engine == "emulated") {
    worker.spec.drafts = rt::one_by_one([speculation = *speculation_](const rt::DraftQuestion& q) {
      return rt::emulated_drafts(speculation, q.sampling.seed, q.index, q.most);
    });
  } else if (draft_model_) {
    draft_by_model(worker, computing_engine(draft_model_->path, computed_options(at, index)),
                   {.kv_blocks = pool.kv_blocks, .block_tokens = pool.block_tokens, .longest = draft_model_->longest});
  } else {
    draft_by_look_up(worker);
  }
}

rt::EngineMaker Serving::engine_of(size_t at, int index) const {
  const simulator::PoolSpec& pool = cluster_.pools[at];
  if (config_.engine == "emulated") {
    const rt::EmulatedOptions emulated{pool.ranks, time_scale_, true};
    const simulator::Engine* engine = instances_.deployment.parts[at].engine;
    return [engine, emulated] { return std::make_unique<LeasedEngine>(*engine, emulated); };
  }
  rt::EngineOptions computed = computed_options(at, index);
  computed.share.ranks = ranks(at);
  if (computed.share.ranks == 1) return computing_engine(options_.model_path, computed);
  return [all = rt::RankedOptions{
              rt::worker_name(pool.stage, index), config_.engine == "cuda", options_.model_path, computed, {}}] {
    return rt::make_ranked_engine(all);
  };
}

rt::EngineOptions Serving::computed_options(size_t at, int index) const {
  const simulator::PoolSpec& pool = cluster_.pools[at];
  rt::EngineOptions computed;
  computed.dtype = computed_dtype(config_.engine, config_.plan.precision);
  computed.kv_blocks = pool.kv_blocks;
  computed.block_tokens = pool.block_tokens;
  if (!options_.threads.empty()) computed.threads = static_cast<int>(parse_count(options_.threads, "--threads", 1024));
  if (!options_.seed_weights.empty())
    computed.random_weights =
        static_cast<uint64_t>(parse_whole(options_.seed_weights, "--random-weights", int64_t{1} << 53));
  if (config_.engine == "cuda") computed.device = gpu_of(at, index);
  return computed;
}

rt::EngineMaker Serving::computing_engine(const std::string& path, const rt::EngineOptions& computed) const {
  if (config_.engine == "cpu") return [path, computed] { return rt::make_cpu_engine(path, computed); };
  return [path, computed] { return rt::open_cuda_engine(path, computed); };
}

std::vector<rt::LocalWorker> Serving::workers(const std::string& only) {
  std::vector<rt::LocalWorker> out;
  for (size_t p = 0; p < cluster_.pools.size(); ++p)
    for (int i = 0; i < cluster_.pools[p].replicas; ++i) {
      const std::string name = rt::worker_name(cluster_.pools[p].stage, i);
      if (!only.empty() && name != only) continue;
      out.push_back({spec_of(p, i), engine_of(p, i), ranks(p)});
      add_drafts(out.back(), p, i);
    }
  if (out.empty()) throw core::Error("--role 'worker:" + only.substr(0, 60) + "': the plan has no worker of this name");
  return out;
}

}  // namespace drydock::cli
