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

std::span<const RankStep> StepPrice::rank_steps(std::span<const StepWork> ranks, double growth) {
  rank_steps_.clear();
  for (const StepWork& work : ranks) rank_steps_.push_back(rank_step(work, growth));
  return rank_steps_;
}

StepLine StepPrice::line(std::span<const StepWork> ranks, double growth) { return line(rank_steps(ranks, growth)); }

double StepPrice::drain_us(std::span<const StepWork> ranks) { return drain_us(rank_steps(ranks, 1)); }

TablePrice::TablePrice(const StepTimer& timer, int attention_dp, const StepOptions& options)
    : timer_(&timer),
      attention_dp_(attention_dp),
      options_(options),
      tokens_(kTokenLevels, Tokens{-1, 0, 0}),
      head_(kTokenLevels, -1),
      decode_(kSequenceLevels * kContextLevels, -1),
      draft_(options.draft_layers > 0 ? decode_.size() : 0, -1),
      prompt_(kPromptLevels * kPromptTokenLevels * kCachedLevels, -1) {
  find_stage();
}

void TablePrice::find_stage() {
  const models::BatchPart typical{8, 1, 1024, true, true};
  double slowest = 0;
  for (int stage = 0; timer_->stages() > 1 && stage < timer_->stages(); ++stage)
    if (const double us = parts(typical, stage).all(); us > slowest) slowest = us, stage_ = stage;
  gap_us_ = timer_->backend().layer_gap_us() * static_cast<double>(timer_->lowering().stage_layers(stage_));
  least_prompt_us_ =
      timer_->backend().least_prompt_us() * static_cast<double>(timer_->lowering().latent_layers(stage_));
}

void TablePrice::reprice() {
  std::fill(tokens_.begin(), tokens_.end(), Tokens{-1, 0, 0});
  for (std::vector<double>* table : {&head_, &decode_, &draft_, &prompt_}) std::fill(table->begin(), table->end(), -1);
  find_stage();
}

StepTimer::Parts TablePrice::parts(const models::BatchPart& part, int stage) {
  if (!options_.remembers) {
    timer_->terms({&part, 1}, stage, scratch_, terms_);
    return timer_->priced(terms_);
  }
  StepTimer::Terms& terms =
      remembered_[{part.sequences, part.new_tokens, part.context, part.emits, part.is_decode, stage}];
  if (terms.empty()) timer_->terms({&part, 1}, stage, scratch_, terms);
  return timer_->priced(terms);
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

// What one rank does by itself in kernels.
double TablePrice::own_us(double tokens, double attention_us, double emitting) {
  return tokens_us(tokens).own + attention_us + head_us(emitting);
}

RankStep TablePrice::rank_step(const StepWork& work, double growth) {
  const double share = 1.0 / timer_->stages();
  RankStep out;
  out.moved_kv_tokens = work.moved_kv_tokens;
  out.has_prompts = !work.prompts.empty();
  double decodes = 0, attention_us = 0;
  if (work.decodes > 0) {
    decodes = std::max(1.0, work.decodes * share);
    const double context = work.decode_context / work.decodes;
    const Segment s = decode_attention(decodes, context);
    attention_us = s.us + draft_us(decodes);
    out.growth_us = s.slope * growth;
    out.steps = std::max<int64_t>(0, static_cast<int64_t>((s.end - context) / growth)) + 1;
    out.tokens = decodes * static_cast<double>(options_.decode_tokens);
    out.host_us = timer_->backend().sequence_host_us() * decodes;
    if (share < 1 || !out.has_prompts) out.own_us = own_us(out.tokens, attention_us, out.tokens);
  }
  if (out.has_prompts) return add_prompts(work, out.tokens, attention_us, out), out;
  out.prompt_own_us = out.own_us, out.prompt_tokens = out.tokens, out.prompt_host_us = out.host_us;
  return out;
}

void TablePrice::add_prompts(const StepWork& work, double decode_tokens, double attention_us, RankStep& out) {
  double tokens = decode_tokens, emitting = decode_tokens, host_us = out.host_us;
  for (const scheduler::Chunk& c : work.prompts) {
    tokens += static_cast<double>(c.tokens);
    emitting += c.last;
    host_us += c.last ? timer_->backend().prompt_step_us() : 0;
  }
  out.prompt_own_us = own_us(tokens, attention_us + prompt_attention(work.prompts), emitting);
  out.prompt_tokens = tokens;
  out.prompt_host_us = host_us;
}

// Two half-batches take turns at compute and at communication.
double TablePrice::Stage::us(bool overlaps) const {
  const double compute = own + experts;
  return overlaps ? (compute + exchange + std::max(compute, exchange)) : compute + exchange;
}

// What the GPUs wait for besides kernels is the busiest rank's.
double TablePrice::stage_us(std::span<const RankStep> ranks, bool prompts) {
  double tokens = 0, fullest = 0, own = 0, host = 0;
  for (const RankStep& r : ranks) {
    const double mine = prompts ? r.prompt_tokens : r.tokens;
    tokens += mine;
    fullest = std::max(fullest, mine);
    own = std::max(own, prompts ? r.prompt_own_us : r.own_us);
    host = std::max(host, prompts ? r.prompt_host_us : r.host_us);
  }
  if (tokens <= 0) return 0;
  const BackendModel& backend = timer_->backend();
  const double mean = std::max(1.0, backend.pads_ranks ? fullest : tokens / attention_dp_);
  const bool halves = options_.two_batch_overlap && attention_dp_ > 1 && mean >= 2;
  const Tokens together = tokens_us(halves ? mean / 2 : mean);
  const Stage stage{halves ? own / 2 : own, together.experts, together.exchange};
  const double kernels = stage.us(halves) * options_.slowdown;
  const double all = host + backend.step_host_us() + gap_us_;
  return all + (prompts ? std::max(kernels * backend.prompt_kernels, least_prompt_us_) : kernels);
}

StepLine TablePrice::line(std::span<const RankStep> ranks) {
  const int stages = timer_->stages();
  bool prompts = false;
  double moved = 0, slowest = -1;
  StepLine line{0, 0, INT64_MAX};
  for (const RankStep& r : ranks) {
    prompts |= r.has_prompts;
    moved = std::max(moved, r.moved_kv_tokens);
    line.steps = std::min(line.steps, r.steps);
    if (r.tokens > 0 && r.own_us > slowest) slowest = r.own_us, line.growth_us = r.growth_us;
  }
  if (prompts) line.first_us = stage_us(ranks, true);
  if (const int others = prompts ? stages - 1 : stages; others > 0) line.first_us += others * stage_us(ranks, false);
  if (moved > 0) line.first_us += moved * options_.swap_us_per_token;
  // What overlaps what may change with every step.
  if (prompts || moved > 0 || (options_.two_batch_overlap && attention_dp_ > 1)) return {line.first_us, 0, 1};
  // Another rank that grows faster may become the slowest.
  for (const RankStep& r : ranks)
    if (r.growth_us > line.growth_us)
      line.steps =
          std::min(line.steps, 1 + static_cast<int64_t>((slowest - r.own_us) / (r.growth_us - line.growth_us)));
  line.growth_us *= stages * options_.slowdown;
  return line;
}

double TablePrice::drain_us(std::span<const RankStep> ranks) {
  const int stages = timer_->stages();
  if (stages == 1) return 0;
  return (stages - 1) * std::max(0.0, stage_us(ranks, true) - stage_us(ranks, false));
}

}  // namespace drydock::simulator
