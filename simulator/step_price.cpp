#include "simulator/step_price.h"

#include <algorithm>
#include <cmath>

#include "simulator/step_grid.h"

namespace drydock::simulator {
namespace {

double mix(double a, double b, double share) { return a + (b - a) * share; }

}  // namespace

int64_t StepLine::steps_until(double us, int64_t most) const {
  if (us <= first_us || most <= 1) return 1;
  // n a + b n (n - 1) / 2 >= us, solved for n; then the whole number that fits, whatever rounding did.
  const double a = first_us - growth_us / 2, b = growth_us / 2;
  const double n = b > 0 ? 2 * us / (a + std::sqrt(a * a + 4 * b * us)) : us / a;
  auto count = std::clamp<int64_t>(static_cast<int64_t>(std::min(n, 1e15)), 1, most);
  while (count > 1 && total_us(count - 1) >= us) --count;
  while (count < most && total_us(count) < us) ++count;
  return count;
}

TablePrice::TablePrice(const StepTimer& timer, int attention_dp, const StepOptions& options)
    : timer_(&timer),
      attention_dp_(attention_dp),
      options_(options),
      tokens_(kTokenLevels, Tokens{-1, 0, 0}),
      head_(kTokenLevels, -1),
      decode_(kSequenceLevels * kContextLevels, -1),
      draft_(options.draft_layers > 0 ? decode_.size() : 0, -1),
      prompt_(kPromptLevels * kPromptTokenLevels * kCachedLevels, -1) {
  const models::BatchPart typical{8, 1, 1024, true, true};
  double slowest = 0;
  for (int stage = 0; timer.stages() > 1 && stage < timer.stages(); ++stage)
    if (const double us = timer.parts({&typical, 1}, stage, scratch_).all(); us > slowest) slowest = us, stage_ = stage;
  gap_us_ = timer.backend().layer_gap_us() * static_cast<double>(timer.lowering().stage_layers(stage_));
}

StepTimer::Parts TablePrice::parts(const models::BatchPart& part) {
  return timer_->parts({&part, 1}, stage_, scratch_);
}

const TablePrice::Tokens& TablePrice::token_node(size_t level) {
  Tokens& node = tokens_[level];
  if (node.own >= 0) return node;
  const StepTimer::Parts p = parts({std::max(1.0, token_at(level)), 1, 1, false, true});
  double shared = p.shared_expert, experts = p.experts * options_.expert_imbalance;
  if (options_.shared_expert_overlap) shared = std::max(0.0, shared - experts);
  node = {p.own + shared, experts, p.exchange};
  return node;
}

TablePrice::Tokens TablePrice::tokens_us(double tokens) {
  const size_t level = std::min(token_level(tokens), kTokenLevels - 2);
  const double low = token_at(level), share = (tokens - low) / (token_at(level + 1) - low);
  const Tokens& a = token_node(level);
  if (share <= 0) return a;
  const Tokens& b = token_node(level + 1);
  return {mix(a.own, b.own, share), mix(a.experts, b.experts, share), mix(a.exchange, b.exchange, share)};
}

double TablePrice::head_node(size_t level) {
  double& node = head_[level];
  if (node >= 0) return node;
  if (level == 0) return node = 0;
  const double n = token_at(level);
  return node = std::max(0.0, parts({n, 1, 1, true, true}).all() - parts({n, 1, 1, false, true}).all());
}

double TablePrice::head_us(double sequences) {
  const size_t level = std::min(token_level(sequences), kTokenLevels - 2);
  const double low = token_at(level), share = (sequences - low) / (token_at(level + 1) - low);
  return share > 0 ? mix(head_node(level), head_node(level + 1), share) : head_node(level);
}

double TablePrice::decode_node(size_t sequences, size_t context, bool drafting) {
  double& node = (drafting ? draft_ : decode_)[sequences * kContextLevels + context];
  const int64_t tokens = drafting ? 1 : options_.decode_tokens;
  if (node < 0)
    node = parts({half_octave_at(sequences), tokens, static_cast<int64_t>(context_at(context)), false, true}).attention;
  return node;
}

double TablePrice::draft_us(double sequences) {
  if (sequences <= 0 || options_.draft_heads <= 0) return 0;
  const Tokens t = tokens_us(sequences);
  return options_.draft_layers * (t.own + t.experts + t.exchange) + options_.draft_heads * head_us(sequences);
}

TablePrice::Segment TablePrice::decode_attention(double sequences, double context) {
  Segment all = decode_attention(sequences, context, false);
  if (options_.draft_layers <= 0) return all;
  const Segment draft = decode_attention(sequences, context, true);  // on the same grid
  all.us += options_.draft_layers * draft.us;
  all.slope += options_.draft_layers * draft.slope;
  return all;
}

TablePrice::Segment TablePrice::decode_attention(double sequences, double context, bool drafting) {
  sequences = std::max(1.0, sequences);
  const size_t n = std::min(half_octave_level(sequences), kSequenceLevels - 2);
  const size_t c = std::min(context_level(context), kContextLevels - 2);
  const double n_share = (sequences - half_octave_at(n)) / (half_octave_at(n + 1) - half_octave_at(n));
  const auto at = [&](size_t level) {
    const double a = decode_node(n, level, drafting);
    return n_share > 0 ? mix(a, decode_node(n + 1, level, drafting), n_share) : a;
  };
  const double low = at(c), high = at(c + 1), from = context_at(c), to = context_at(c + 1);
  const double slope = (high - low) / (to - from);
  return {low + slope * (context - from), slope, to};
}

double TablePrice::prompt_node(size_t sequences, size_t tokens, size_t cached) {
  double& node = prompt_[(sequences * kPromptTokenLevels + tokens) * kCachedLevels + cached];
  if (node >= 0) return node;
  const double k = power_of_2(sequences), n = power_of_2(tokens);
  const auto before = static_cast<int64_t>(cached_at(cached));
  const StepTimer::Parts prompt = parts({k, static_cast<int64_t>(n), before, false, false});
  // Latent attention also expands the cached latents, in GEMMs that see the context.
  const StepTimer::Parts plain = parts({k * n, 1, 1, false, true});
  return node = std::max(1e-3, prompt.attention + std::max(0.0, prompt.own - plain.own));
}

double TablePrice::prompt_node_at(size_t sequences, size_t tokens, double cached) {
  const size_t level = std::min(cached_level(cached), kCachedLevels - 2);
  const double low = cached_at(level), share = (cached - low) / (cached_at(level + 1) - low);
  const double a = prompt_node(sequences, tokens, level);
  return share > 0 ? mix(a, prompt_node(sequences, tokens, level + 1), share) : a;
}

// Log-log in sequences and tokens, where the time is close to a power law; linear in cached tokens, where it is affine.
double TablePrice::prompt_attention(double sequences, double tokens, double cached) {
  const size_t k = std::min(static_cast<size_t>(octave(std::max(1.0, sequences))), kPromptLevels - 2);
  const size_t n = std::min(static_cast<size_t>(octave(std::max(1.0, tokens))), kPromptTokenLevels - 2);
  const double k_share = std::log2(std::max(1.0, sequences)) - static_cast<double>(k);
  const double n_share = std::log2(std::max(1.0, tokens)) - static_cast<double>(n);
  const auto at = [&](size_t level) {
    const double a = prompt_node_at(level, n, cached);
    return n_share > 0 ? a * std::pow(prompt_node_at(level, n + 1, cached) / a, n_share) : a;
  };
  const double a = at(k);
  return k_share > 0 ? a * std::pow(at(k + 1) / a, k_share) : a;
}

// Chunks of different sizes count as so many equal ones of the same tokens and the same pairs of query and key.
double TablePrice::prompt_attention(std::span<const scheduler::Chunk> prompts) {
  double tokens = 0, pairs = 0;
  for (const scheduler::Chunk& c : prompts) {
    const auto n = static_cast<double>(c.tokens);
    tokens += n;
    pairs += n * (static_cast<double>(c.context) + n / 2);
  }
  const auto k = static_cast<double>(prompts.size());
  return prompt_attention(k, tokens / k, std::max(0.0, pairs / tokens - tokens / k / 2));
}

double TablePrice::tokens_of(const StepWork& work, double share, bool prompts) const {
  double tokens =
      work.decodes > 0 ? std::max(1.0, work.decodes * share) * static_cast<double>(options_.decode_tokens) : 0;
  if (prompts)
    for (const scheduler::Chunk& c : work.prompts) tokens += static_cast<double>(c.tokens);
  return tokens;
}

// What one rank does by itself in kernels.
double TablePrice::own_us(const StepWork& work, double share, bool prompts) {
  const double decodes = work.decodes > 0 ? std::max(1.0, work.decodes * share) : 0;
  double us = tokens_us(tokens_of(work, share, prompts)).own,
         emitting = decodes * static_cast<double>(options_.decode_tokens);
  if (decodes > 0) us += decode_attention(decodes, work.decode_context / work.decodes).us + draft_us(decodes);
  if (prompts && !work.prompts.empty()) {
    us += prompt_attention(work.prompts);
    for (const scheduler::Chunk& c : work.prompts) emitting += c.last;
  }
  return us + head_us(emitting);
}

// Two half-batches take turns at compute and at communication.
double TablePrice::Stage::us(bool overlaps) const {
  const double compute = own + experts;
  return overlaps ? (compute + exchange + std::max(compute, exchange)) : compute + exchange;
}

double TablePrice::stage_us(std::span<const StepWork> ranks, double share, bool prompts) {
  double tokens = 0, own = 0;
  for (const StepWork& work : ranks) {
    tokens += tokens_of(work, share, prompts);
    if (work.decodes > 0 || (prompts && !work.prompts.empty())) own = std::max(own, own_us(work, share, prompts));
  }
  if (tokens <= 0) return 0;
  const double mean = std::max(1.0, tokens / attention_dp_);
  const bool halves = options_.two_batch_overlap && attention_dp_ > 1 && mean >= 2;
  const Tokens together = tokens_us(halves ? mean / 2 : mean);
  const Stage stage{halves ? own / 2 : own, together.experts, together.exchange};
  const double kernels = stage.us(halves) * options_.slowdown;
  return kernels * (prompts ? timer_->backend().prompt_kernels : 1) + host_us(ranks, share, prompts);
}

// What the GPUs wait for besides kernels: the busiest rank's.
double TablePrice::host_us(std::span<const StepWork> ranks, double share, bool prompts) const {
  const BackendModel& backend = timer_->backend();
  double most = 0;
  for (const StepWork& work : ranks) {
    double us = work.decodes > 0 ? backend.sequence_host_us() * std::max(1.0, work.decodes * share) : 0;
    if (prompts)
      for (const scheduler::Chunk& c : work.prompts) us += c.last ? backend.prompt_step_us() : 0;
    most = std::max(most, us);
  }
  return most + backend.step_host_us() + gap_us_;
}

double TablePrice::step_us(std::span<const StepWork> ranks) {
  const int stages = timer_->stages();
  const double share = 1.0 / stages;
  bool prompts = false;
  for (const StepWork& work : ranks) prompts |= !work.prompts.empty();
  double us = prompts ? stage_us(ranks, share, true) : 0;
  if (const int others = prompts ? stages - 1 : stages; others > 0) us += others * stage_us(ranks, share, false);
  double moved = 0;
  for (const StepWork& work : ranks) moved = std::max(moved, work.moved_kv_tokens);
  return us + (moved > 0 ? moved * options_.swap_us_per_token : 0);
}

double TablePrice::drain_us(std::span<const StepWork> ranks) {
  const int stages = timer_->stages();
  if (stages == 1) return 0;
  const double share = 1.0 / stages;
  return (stages - 1) * std::max(0.0, stage_us(ranks, share, true) - stage_us(ranks, share, false));
}

StepLine TablePrice::line(std::span<const StepWork> ranks, double growth) {
  const int stages = timer_->stages();
  const double share = 1.0 / stages;
  StepLine line{step_us(ranks), 0, INT64_MAX};
  double slowest = -1;
  std::vector<std::pair<double, double>> own;  // of each rank: its time, its growth
  for (const StepWork& work : ranks) {
    if (work.decodes <= 0) continue;
    const double context = work.decode_context / work.decodes;
    const Segment s = decode_attention(work.decodes * share, context);
    line.steps = std::min(line.steps, std::max<int64_t>(0, static_cast<int64_t>((s.end - context) / growth)) + 1);
    if (ranks.size() == 1) {
      line.growth_us = s.slope * growth;
      continue;
    }
    own.emplace_back(own_us(work, share, false), s.slope * growth);
    if (own.back().first > slowest) slowest = own.back().first, line.growth_us = own.back().second;
  }
  // Another rank that grows faster may become the slowest.
  for (const auto& [us, slope] : own)
    if (slope > line.growth_us)
      line.steps = std::min(line.steps, 1 + static_cast<int64_t>((slowest - us) / (slope - line.growth_us)));
  line.growth_us *= stages * options_.slowdown;
  if (options_.two_batch_overlap && attention_dp_ > 1) line.steps = 1;  // what overlaps what may change with every step
  return line;
}

}  // namespace drydock::simulator
