#include "scheduler/router.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <string>

#include "core/error.h"

namespace drydock::scheduler {
namespace {

constexpr std::string_view kRouterNames[] = {"round_robin", "least_outstanding_tokens", "power_of_two", "kv_aware"};

void check(const RouterConfig& config, int workers) {
  const auto need = [](bool good, const char* what) {
    if (!good) throw core::Error(std::string("router: ") + what);
  };
  const auto weight = [](double value) { return value >= 0 && std::isfinite(value); };
  need(workers >= 0, "the number of workers must not be negative");
  need(weight(config.prefill_load_scale), "prefill_load_scale must be finite and not negative");
  need(weight(config.request_weight), "request_weight must be finite and not negative");
  need(weight(config.temperature), "temperature must be finite and not negative");
  need(config.block_tokens > 0, "block_tokens must be at least 1");
}

}  // namespace

std::string_view name(RouterPolicy policy) { return kRouterNames[static_cast<size_t>(policy)]; }

std::optional<RouterPolicy> parse_router_policy(std::string_view text) {
  const auto found = std::find(std::begin(kRouterNames), std::end(kRouterNames), text);
  if (found == std::end(kRouterNames)) return std::nullopt;
  return static_cast<RouterPolicy>(found - std::begin(kRouterNames));
}

Router::Router(const RouterConfig& config, int workers) : config_(config), random_(config.seed) {
  check(config, workers);
  loads_.resize(static_cast<size_t>(workers));
}

int Router::route(int64_t prompt_tokens, std::span<const int64_t> overlap_tokens, double now_us) {
  switch (config_.policy) {
    case RouterPolicy::round_robin:
      return next_in_turn(now_us);
    case RouterPolicy::power_of_two:
      return better_of_two(now_us);
    case RouterPolicy::least_outstanding_tokens:
    case RouterPolicy::kv_aware:
      break;
  }
  return cheapest(prompt_tokens, overlap_tokens, now_us);
}

bool Router::allowed(const WorkerLoad& load, double now_us) {
  return load.alive && !load.draining && !load.removed && now_us >= load.inhibited_until_us;
}

int Router::next_in_turn(double now_us) {
  for (size_t tried = 0; tried < loads_.size(); ++tried) {
    const size_t worker = (turn_ + tried) % loads_.size();
    if (!allowed(loads_[worker], now_us)) continue;
    turn_ = worker + 1;
    return static_cast<int>(worker);
  }
  return -1;
}

int Router::better_of_two(double now_us) {
  const auto fits = [now_us](const WorkerLoad& load) { return allowed(load, now_us); };
  const int64_t candidates = std::count_if(loads_.begin(), loads_.end(), fits);
  if (candidates == 0) return -1;
  // Two different ordinals among the candidates; with one candidate, that one twice.
  const int64_t first = random_.integer(0, candidates - 1);
  const int64_t second = candidates == 1 ? first : (first + random_.integer(1, candidates - 1)) % candidates;
  int best = -1;
  int64_t ordinal = 0;
  for (size_t worker = 0; worker < loads_.size(); ++worker) {
    if (!fits(loads_[worker])) continue;
    const bool drawn = ordinal == first || ordinal == second;
    ++ordinal;
    if (drawn && (best < 0 || loads_[worker].context_tokens < loads_[static_cast<size_t>(best)].context_tokens))
      best = static_cast<int>(worker);
  }
  return best;
}

double Router::cost(const WorkerLoad& load, int64_t prompt_tokens, int64_t overlap_tokens) const {
  if (config_.policy == RouterPolicy::least_outstanding_tokens) return static_cast<double>(load.context_tokens);
  const int64_t overlap = std::clamp<int64_t>(overlap_tokens, 0, prompt_tokens);
  const double prefill = static_cast<double>(load.prefill_tokens + prompt_tokens - overlap);
  const double decode = static_cast<double>(load.context_tokens + prompt_tokens);
  return (config_.prefill_load_scale * prefill + decode) / static_cast<double>(config_.block_tokens) +
         config_.request_weight * static_cast<double>(load.requests);
}

int Router::cheapest(int64_t prompt_tokens, std::span<const int64_t> overlap_tokens, double now_us) {
  const bool sample = config_.policy == RouterPolicy::kv_aware && config_.temperature > 0;
  int best = -1;
  double lowest = 0;
  for (size_t worker = 0; worker < loads_.size(); ++worker) {
    if (!allowed(loads_[worker], now_us)) continue;
    double value = cost(loads_[worker], prompt_tokens, worker < overlap_tokens.size() ? overlap_tokens[worker] : 0);
    // The lowest of cost - temperature x Gumbel noise is a draw from softmax(-cost / temperature), in one pass and
    // without room for the weights (Gumbel 1954; Maddison et al. 2014).
    if (sample) value += config_.temperature * std::log(random_.exponential(1));
    if (best >= 0 && !(value < lowest)) continue;
    best = static_cast<int>(worker);
    lowest = value;
  }
  return best;
}

WorkerLoad& Router::at(int worker) {
  if (worker < 0 || worker >= workers())
    throw core::Error("router: no worker " + std::to_string(worker) + "; there are " + std::to_string(workers()));
  return loads_[static_cast<size_t>(worker)];
}

const WorkerLoad& Router::load(int worker) const { return const_cast<Router*>(this)->at(worker); }

void Router::started(int worker, int64_t prompt_tokens, int64_t cached_tokens) {
  WorkerLoad& load = at(worker);
  load.prefill_tokens += prompt_tokens - cached_tokens;
  load.context_tokens += prompt_tokens;
  ++load.requests;
}

// News of requests that went with a removed worker may come late; it must not make counts negative.
void Router::first_token(int worker, int64_t prompt_tokens, int64_t cached_tokens) {
  WorkerLoad& load = at(worker);
  load.prefill_tokens = std::max<int64_t>(0, load.prefill_tokens - (prompt_tokens - cached_tokens));
}

void Router::progress(int worker, int64_t tokens) {
  WorkerLoad& load = at(worker);
  if (!load.removed) load.context_tokens += tokens;
}

void Router::finished(int worker, int64_t prompt_tokens, int64_t generated_tokens) {
  WorkerLoad& load = at(worker);
  load.context_tokens = std::max<int64_t>(0, load.context_tokens - prompt_tokens - generated_tokens);
  load.requests = std::max<int64_t>(0, load.requests - 1);
}

void Router::abandoned(int worker, int64_t prompt_tokens, int64_t cached_tokens) {
  first_token(worker, prompt_tokens, cached_tokens);
  finished(worker, prompt_tokens, 0);
}

int Router::add_worker() {
  loads_.emplace_back();
  return workers() - 1;
}

void Router::drain(int worker) { at(worker).draining = true; }

void Router::remove(int worker) {
  at(worker) = WorkerLoad{};
  at(worker).alive = false;
  at(worker).removed = true;
}

void Router::set_alive(int worker, bool alive) { at(worker).alive = alive; }

void Router::inhibit(int worker, double until_us) {
  double& until = at(worker).inhibited_until_us;
  until = std::max(until, until_us);
}

bool Router::drained(int worker) const { return load(worker).draining && load(worker).requests == 0; }

std::optional<InFlight> migrate(const Migration& migration, const InFlight& request) {
  if (request.migrations >= migration.limit || request.output_tokens_left <= 0) return std::nullopt;
  return InFlight{request.prompt_tokens + request.generated_tokens, 0, request.output_tokens_left,
                  request.migrations + 1};
}

int least_loaded_rank(std::span<const int64_t> rank_tokens, std::span<const int64_t> rank_sequences,
                      int64_t max_sequences) {
  assert(rank_tokens.size() == rank_sequences.size());
  int best = -1;
  for (size_t rank = 0; rank < rank_tokens.size(); ++rank) {
    if (rank_sequences[rank] >= max_sequences) continue;
    const auto load = std::pair(rank_tokens[rank], rank_sequences[rank]);
    const auto least = static_cast<size_t>(best);
    if (best < 0 || load < std::pair(rank_tokens[least], rank_sequences[least])) best = static_cast<int>(rank);
  }
  return best;
}

double imbalance(std::span<const int64_t> loads) {
  double sum = 0;
  for (const int64_t load : loads) sum += static_cast<double>(load);
  if (!(sum > 0)) return 0;
  const double mean = sum / static_cast<double>(loads.size());
  return static_cast<double>(*std::max_element(loads.begin(), loads.end())) / mean - 1;
}

}  // namespace drydock::scheduler
