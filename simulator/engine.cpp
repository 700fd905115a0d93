#include <algorithm>
#include <cmath>

#include "simulator/bands.h"
#include "simulator/closed_loop.h"
#include "simulator/engine_state.h"

namespace drydock::simulator {
namespace {

constexpr int kFixedPointRounds = 40;  // halves the distance each: 1e-12 of the start is left

double relative_spread(const StepCost& cost) { return cost.us > 0 ? cost.spread_us / cost.us : 0; }

core::Figure inverse(const core::Figure& f, double numerator) {
  return {numerator / f.value, numerator / f.high, numerator / f.low};
}

}  // namespace

StepTable& Engine::Impl::table_for(const Lengths& lengths) {
  if (!table || !(table->lengths() == lengths))
    table = std::make_unique<StepTable>(timer, parallelism.attention_dp, lengths, max_tokens, options.speculation);
  return *table;
}

Lengths Engine::Impl::lengths_of(const models::Workload& workload) const {
  const double mean = (workload.shortest + workload.longest) / 2;
  const double prompt = static_cast<double>(workload.isl) * mean;
  const double fresh = std::max(1.0, prompt * (1 - workload.prefix_hit));
  return {fresh, prompt - fresh, static_cast<double>(workload.osl) * mean};
}

double Engine::Impl::fitting(double tokens) const {
  double fit = 1e9;
  for (size_t stage = 0; stage < kv_room.size(); ++stage) {
    const double bytes =
        models::sequence_kv_bytes(architecture, precision, parallelism, static_cast<int>(stage), tokens);
    if (bytes > 0) fit = std::min(fit, std::floor(kv_room[stage] / bytes));
  }
  return std::max(0.0, fit) * parallelism.attention_dp;
}

Engine::Engine(const models::Architecture& architecture, const models::Precision& precision,
               const models::Parallelism& parallelism, const models::System& system, const perfdb::KernelTimes& times,
               const BackendModel& backend, int64_t max_tokens, const EngineOptions& options)
    : impl_(new Impl{architecture,
                     precision,
                     parallelism,
                     system,
                     backend,
                     max_tokens,
                     options,
                     StepTimer(architecture, precision, parallelism, times, backend, options.experts.get()),
                     {},
                     {},
                     {},
                     {},
                     {}}) {
  for (int stage = 0; stage < parallelism.pp; ++stage) {
    const auto memory =
        models::stage_memory(architecture, precision, parallelism, stage, max_tokens, options.expert_copies);
    impl_->kv_room.push_back(system.memory_bytes * backend.memory_fraction - memory.fixed());
    if (memory.fixed() > impl_->fullest.fixed()) impl_->fullest = memory;
  }
}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;

const models::StageMemory& Engine::memory() const { return impl_->fullest; }

double Engine::kv_tokens() const {
  double room = 1e300;
  for (const double bytes : impl_->kv_room) room = std::min(room, bytes);
  const double per_token = impl_->fullest.kv_per_token;
  return room > 0 && per_token > 0 ? std::floor(room / per_token) : 0;
}

int64_t Engine::sequences_that_fit(double tokens) const { return static_cast<int64_t>(impl_->fitting(tokens)); }

int64_t Engine::slots(const models::Workload& workload) const {
  const Lengths lengths = impl_->lengths_of(workload);
  const double held = lengths.prompt() + lengths.output * (impl_->backend.reserves_output ? 1.0 : 0.5);
  return sequences_that_fit(held);
}

int64_t Engine::batch_limit(const models::Workload& workload, int64_t max_batch) const {
  const int64_t fitting = slots(workload);
  return fitting < 1 ? max_batch : std::min(max_batch, fitting);
}

Engine::Agg Engine::aggregated(const models::Workload& workload, double concurrency, int64_t max_batch) const {
  const std::scoped_lock lock(impl_->mutex);
  const Lengths lengths = impl_->lengths_of(workload);
  const BackendModel& backend = impl_->backend;
  StepTable& table = impl_->table_for(lengths);
  ClosedLoop loop;
  loop.concurrency = concurrency;
  loop.prompts = concurrency * kPromptsPerSlot;
  loop.slots = static_cast<double>(batch_limit(workload, max_batch));
  if (workload.connections > 0)  // an instance's share of them
    loop.slots = std::min(loop.slots, std::max(1.0, static_cast<double>(workload.connections) * concurrency /
                                                        workload.concurrency.value_or(concurrency)));
  loop.gap_us = backend.outside_ms(0) * 1e3;
  loop.shortest_output = workload.shortest * static_cast<double>(workload.osl);
  loop.longest_output = workload.longest * static_cast<double>(workload.osl);
  LoopTimes times = follow(table, backend.admission, loop);
  if (times.tpot_us <= 0)
    times.tpot_us = table.decode(times.running).us;  // answers of one token: what a second would take
  const double decode_spread = relative_spread(table.decode(times.running));
  const double prefill_spread = relative_spread(table.prefill(1, times.running));
  const double first_ms = outside_ms(concurrency) + table.prefill_latency_us(1) * 1e-3;
  // The client sees the first token with the first chunk of the stream, and spreads what is left over all tokens.
  const double gathered_us = static_cast<double>(workload.stream_interval - 1) * times.tpot_us;
  const double steps = std::max(1.0, lengths.output - 1);
  Agg out;
  out.ttft_ms = banded((times.ttft_us + gathered_us) * 1e-3 + first_ms, std::hypot(prefill_spread, decode_spread),
                       backend.ttft_spread);
  out.tpot_ms = banded((times.tpot_us - std::min(gathered_us / steps, times.tpot_us / 2)) * 1e-3, decode_spread,
                       backend.tpot_spread);
  out.requests_per_s =
      inverse(banded(times.latency_us * 1e-6 + first_ms * 1e-3, decode_spread, backend.tpot_spread), concurrency);
  out.running = times.running;
  return out;
}

// Poisson arrivals: prompts queue for the engine as M/D/1, and decode goes on in the time that they leave.
std::optional<Engine::Agg> Engine::open_loop(const models::Workload& workload, double rate, int64_t max_batch) const {
  const std::scoped_lock lock(impl_->mutex);
  const Lengths lengths = impl_->lengths_of(workload);
  const BackendModel& backend = impl_->backend;
  StepTable& table = impl_->table_for(lengths);
  const double most = static_cast<double>(std::min(max_batch, slots(workload)));
  double running = 1, tpot_us = 0, busy = 0, prompt_us = 0;
  for (int i = 0; i < kFixedPointRounds; ++i) {
    const double decode_us = table.decode(running).us;
    const bool beside = backend.admission != Admission::prefill_first;
    prompt_us = table.prefill(1, beside ? running : 0).us;
    // A mixed step gives every running sequence its token too, so it costs them only what it takes beyond a plain one.
    const double spared_us =
        beside ? decode_us * table.tokens_per_step() * static_cast<double>(table.steps_per_prompt()) : 0;
    busy = rate * 1e-6 * std::max(0.0, prompt_us - spared_us);
    if (busy >= 1) return std::nullopt;
    tpot_us = decode_us / (1 - busy);
    running = std::max(1.0, (running + rate * 1e-6 * tpot_us * lengths.output) / 2);
    if (running > 2 * most) return std::nullopt;
  }
  if (running > most) return std::nullopt;
  const double decode_us = table.decode(running).us;
  const double load = std::min(rate * 1e-6 * prompt_us / table.prompts_per_step(), 0.99);
  const double wait_us = decode_us / 2 + prompt_us * load / (2 * (1 - load));
  const double gathered_us = static_cast<double>(workload.stream_interval - 1) * tpot_us;
  const double first_ms = outside_ms(running) + table.prefill_latency_us(1) * 1e-3;
  const double spread = relative_spread(table.decode(running));
  Agg out;
  out.ttft_ms = banded((wait_us + prompt_us + gathered_us) * 1e-3 + first_ms,
                       std::hypot(spread, relative_spread(table.prefill(1, running))), backend.ttft_spread);
  out.tpot_ms = banded(tpot_us * 1e-3, spread, backend.tpot_spread);
  out.requests_per_s = {rate, rate, rate};
  out.running = running;
  return out;
}

Engine::Prefill Engine::prefill(const models::Workload& workload, int64_t batch) const {
  const std::scoped_lock lock(impl_->mutex);
  StepTable& table = impl_->table_for(impl_->lengths_of(workload));
  const double prompts = static_cast<double>(batch), per_step = table.prompts_per_step();
  const double steps = std::ceil(prompts / per_step);
  const StepCost cost = table.prefill(prompts / steps, 0);
  const double busy_ms = cost.us * steps * 1e-3;
  Prefill out;
  const double spread = relative_spread(cost);
  out.requests_per_s = inverse(banded(busy_ms * 1e-3, spread, impl_->backend.tpot_spread), prompts);
  out.batch_ms = banded(busy_ms + table.prefill_latency_us(prompts / steps) * 1e-3, spread, impl_->backend.ttft_spread);
  return out;
}

StepOptions Engine::Impl::step_options() const {
  StepOptions out;
  out.two_batch_overlap = options.two_batch_overlap;
  out.shared_expert_overlap = options.shared_expert_overlap;
  out.decode_tokens = options.decode_tokens();
  out.remembers = options.remembers;
  if (!options.speculation) return out;
  const DraftPasses passes =
      draft_passes(*options.speculation, timer.lowering().stage_layers(timer.lowering().stages() - 1));
  out.draft_layers = passes.layers;
  out.draft_heads = passes.heads;
  return out;
}

Engine::PriceLease Engine::lease_price() const {
  const std::scoped_lock lock(impl_->mutex);
  if (impl_->prices.empty())
    return {*this, std::make_unique<TablePrice>(impl_->timer, impl_->parallelism.attention_dp, impl_->step_options())};
  std::unique_ptr<TablePrice> price = std::move(impl_->prices.back());
  impl_->prices.pop_back();
  return {*this, std::move(price)};
}

void Engine::reprice() {
  const std::scoped_lock lock(impl_->mutex);
  impl_->table.reset();
  for (const auto& price : impl_->prices) price->reprice();
}

Engine::PriceLease::~PriceLease() {
  if (!price_) return;
  const std::scoped_lock lock(engine_->impl_->mutex);
  engine_->impl_->prices.push_back(std::move(price_));
}

Engine::Bound Engine::bound(const models::Workload& workload, models::Role role, int64_t max_batch,
                            double users) const {
  const PriceLease lease = lease_price();
  TablePrice& price = lease.price();
  const Lengths lengths = impl_->lengths_of(workload);
  const bool prompts = role != models::Role::decode, decodes = role != models::Role::prefill;
  TablePrice::Demand demand;
  demand.prompt_tokens = prompts ? lengths.fresh : 0;
  // An answer takes its tokens over those of a step in whole steps, rounded: at most half a step fewer.
  const double growth = impl_->options.decode_growth(), rounded = growth > 1 ? 0.5 : 0;
  demand.decode_steps = decodes ? std::max(0.0, (lengths.output - 1) / growth - rounded) : 0;
  demand.context = lengths.prompt();
  demand.max_decodes = std::ceil(static_cast<double>(max_batch) / ranks());
  if (users > 0) demand.max_decodes = std::max(1.0, std::min(demand.max_decodes, std::ceil(users / ranks())));
  // An engine that takes prompts whole may go over its budget for one.
  demand.max_tokens = std::max(static_cast<double>(impl_->max_tokens), lengths.fresh) +
                      demand.max_decodes * static_cast<double>(impl_->options.decode_tokens());
  Bound out;
  out.requests_per_s = 1e6 * ranks() / price.least_us(demand);
  const double shortest = std::max(1.0, std::floor(static_cast<double>(workload.isl) * workload.shortest));
  const StepWork lone{1, shortest, {}, 0};
  const double least_output = std::floor(static_cast<double>(workload.osl) * workload.shortest);
  const double least_steps = std::max(0.0, 1 / growth - rounded / std::max(1.0, least_output - 1));  // of a token
  if (decodes) out.tpot_ms = price.step_us({&lone, 1}) * least_steps * 1e-3;
  demand.prompt_tokens = std::max(1.0, shortest * (1 - workload.prefix_hit));
  demand.decode_steps = 0;
  demand.alone = true;
  if (prompts) out.ttft_ms = price.least_us(demand) * 1e-3 + outside_ms(1);
  if (users > 0 && decodes) {
    const double latency_ms = out.ttft_ms + std::max(0.0, lengths.output - 1) * out.tpot_ms;
    out.requests_per_s = std::min(out.requests_per_s, users / latency_ms * 1e3);
  }
  return out;
}

scheduler::Policy Engine::policy(int64_t max_batch) const {
  const int64_t sequences = std::max<int64_t>(1, (max_batch + ranks() - 1) / ranks());
  scheduler::Policy out;
  switch (impl_->backend.admission) {
    case Admission::prefill_first:
      out = scheduler::sglang(impl_->max_tokens, sequences);
      break;
    case Admission::mixed_whole:
      out = scheduler::trtllm(impl_->max_tokens, sequences, !impl_->backend.reserves_output);
      break;
    default:
      out = scheduler::vllm(impl_->max_tokens, sequences);
  }
  out.result_delay = static_cast<int>(impl_->backend.result_delay);
  out.decode_tokens = impl_->options.decode_tokens();
  out.decode_growth = impl_->options.decode_growth();
  const models::PromptWaits& waits = impl_->options.waits;
  out.wait_steps = waits.steps;
  out.wait_share = waits.share;
  out.poll_steps = waits.poll;
  out.balance_steps = waits.balance;
  out.balance_wait = waits.balance_batching;
  return out;
}

int64_t Engine::kv_blocks(double context, int64_t block_tokens, double known_to_run) const {
  double tokens = 1e12;
  for (size_t stage = 0; stage < impl_->kv_room.size(); ++stage) {
    const double bytes = models::sequence_kv_bytes(impl_->architecture, impl_->precision, impl_->parallelism,
                                                   static_cast<int>(stage), context);
    if (bytes > 0) tokens = std::min(tokens, impl_->kv_room[stage] / bytes * context);
  }
  if (tokens < context) tokens = std::max(context, known_to_run);
  const double blocks = std::ceil(tokens / static_cast<double>(block_tokens));
  return static_cast<int64_t>(std::clamp(blocks, 1.0, 1e7));
}

int Engine::ranks() const { return impl_->parallelism.attention_dp; }
const EngineOptions& Engine::options() const { return impl_->options; }
const BackendModel& Engine::backend() const { return impl_->backend; }

double Engine::decode_spread(const models::Workload& workload, double batch) const {
  const std::scoped_lock lock(impl_->mutex);
  return relative_spread(impl_->table_for(impl_->lengths_of(workload)).decode(batch));
}

double Engine::prefill_spread(const models::Workload& workload) const {
  const std::scoped_lock lock(impl_->mutex);
  return relative_spread(impl_->table_for(impl_->lengths_of(workload)).prefill(1, 0));
}

double Engine::outside_ms(double in_flight) const { return impl_->backend.outside_ms(in_flight); }

Engine::Decode Engine::decode(const models::Workload& workload, double batch) const {
  const std::scoped_lock lock(impl_->mutex);
  const Lengths lengths = impl_->lengths_of(workload);
  const StepCost cost = impl_->table_for(lengths).decode(batch);
  Decode out;
  out.tpot_ms = banded(cost.us * 1e-3, relative_spread(cost), impl_->backend.tpot_spread);
  out.requests_per_s = inverse(out.tpot_ms, batch * 1e3 / std::max(1.0, lengths.output - 1));
  return out;
}

}  // namespace drydock::simulator
