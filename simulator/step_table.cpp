#include "simulator/step_table.h"

#include <algorithm>
#include <cmath>

namespace drydock::simulator {
namespace {

// Running sequences are priced at 0, 1, 2, 4 ... 2^15 in decode; beside a prefill, where they add little, at 0, 1, 8,
// 64 ...
constexpr int kDecodeLevels = 17;
constexpr int kBesideLevels = 7;
constexpr int kBatchLevels = 12;

double doubled(int times) { return static_cast<double>(1 << times); }
double running_at(int level) { return level == 0 ? 0 : doubled(level - 1); }
double beside_at(int level) { return level == 0 ? 0 : doubled(3 * (level - 1)); }

StepCost mix(StepCost a, StepCost b, double share) {
  a *= 1 - share;
  b *= share;
  return a += b;
}

// Position of `x` on the grid `at(level)`: the level below and the share of the way to the next.
template <typename Grid>
std::pair<int, double> place(double x, int levels, const Grid& at) {
  int level = 0;
  while (level + 2 < levels && at(level + 1) <= x) ++level;
  const double low = at(level), high = at(level + 1);
  return {level, std::max(0.0, (x - low) / (high - low))};
}

}  // namespace

StepTable::StepTable(const StepTimer& timer, int attention_dp, const Lengths& lengths, int64_t max_tokens,
                     const std::optional<scheduler::Speculation>& speculation)
    : timer_(&timer),
      attention_dp_(attention_dp),
      lengths_(lengths),
      max_tokens_(max_tokens),
      speculation_(speculation),
      decode_tokens_(speculation ? 1 + speculation->drafts() : 1),
      growth_(speculation ? speculation->expected_tokens() : 1),
      decode_(kDecodeLevels),
      prefill_(static_cast<size_t>(kBatchLevels * kBesideLevels)) {
  const double budget = static_cast<double>(max_tokens);
  const bool chunked = timer.backend().admission != Admission::mixed_whole;
  prompts_per_step_ = std::max(1.0, std::floor(budget / lengths.fresh)) * attention_dp_;
  steps_per_prompt_ = chunked ? std::max<int64_t>(1, static_cast<int64_t>(std::ceil(lengths.fresh / budget))) : 1;
}

// With pipeline stages a batch is split into as many microbatches, and a round visits every stage with each of them.
StepCost StepTable::price_decode(double running) {
  const int stages = timer_->stages();
  const double per_rank = running / attention_dp_ / stages;
  const models::BatchPart part{std::max(per_rank, 1.0), decode_tokens_, std::llround(lengths_.mean_context()), true,
                               true};
  const BackendModel& backend = timer_->backend();
  StepCost cost;
  for (int stage = 0; stage < stages; ++stage)
    if (const StepCost one = timer_->stage({&part, 1}, stage, scratch_); one.us > cost.us) cost = one;
  cost.us += backend.step_host_us() + backend.sequence_host_us() * per_rank;
  if (speculation_) cost += draft(part.sequences);
  cost *= stages / growth_;
  return cost;
}

// All drafts of one step, on the last stage: a share of the passes over its layers, and its output head.
StepCost StepTable::draft(double sequences) {
  const int last = timer_->stages() - 1;
  const DraftPasses passes = draft_passes(*speculation_, timer_->lowering().stage_layers(last));
  models::BatchPart part{sequences, 1, std::llround(lengths_.mean_context()), false, true};
  StepCost layers = timer_->stage({&part, 1}, last, scratch_);
  part.emits = true;
  const double head_us = std::max(0.0, timer_->stage({&part, 1}, last, scratch_).us - layers.us);
  layers.us -= timer_->backend().layer_gap_us() * static_cast<double>(timer_->lowering().stage_layers(last));
  layers *= passes.layers;
  layers.us += head_us * passes.heads;
  return layers;
}

StepCost StepTable::price_prefill(double prompts, double running) {
  const double sequences = prompts / attention_dp_;
  const double beside = running / attention_dp_ / timer_->stages();
  const int64_t fresh = std::max<int64_t>(1, std::llround(lengths_.fresh)), cached = std::llround(lengths_.cached);
  const int64_t chunk = chunk_tokens();
  StepCost total;
  for (int64_t done = 0; done < fresh; done += chunk) {
    const int64_t tokens = std::min(chunk, fresh - done);
    const models::BatchPart prompt{sequences, tokens, cached + done, done + tokens >= fresh, false};
    const models::BatchPart decode{beside, decode_tokens_, std::llround(lengths_.mean_context()), true, true};
    total += slowest_stage(prompt, decode);
    total.us += timer_->backend().step_host_us();
  }
  const BackendModel& backend = timer_->backend();
  total.us += backend.prompt_step_us() * std::max(sequences, std::min(prompts, 1.0)) +
              backend.sequence_host_us() * running / attention_dp_ * static_cast<double>(steps_per_prompt_);
  return total;
}

int64_t StepTable::chunk_tokens() const {
  const int64_t fresh = std::max<int64_t>(1, std::llround(lengths_.fresh));
  return (fresh + steps_per_prompt_ - 1) / steps_per_prompt_;
}

// Fewer prompts than attention-DP ranks: the slowest rank has a whole one, while experts and the communication around
// them see what all ranks bring.
StepCost StepTable::slowest_stage(const models::BatchPart& prompt, const models::BatchPart& decode) {
  const models::BatchPart parts[] = {prompt, decode};
  const models::Batch batch(parts, decode.sequences > 0 ? 2 : 1);
  models::BatchPart whole[] = {prompt, decode};
  whole[0].sequences = std::max(1.0, prompt.sequences);
  const BackendModel& backend = timer_->backend();
  const bool uneven = attention_dp_ > 1 && prompt.sequences < 1;
  StepCost slowest;
  for (int stage = 0; stage < timer_->stages(); ++stage) {
    StepCost cost;
    if (uneven && !backend.pads_ranks) {
      cost = timer_->stage(batch, stage, scratch_, StepTimer::Share::together);
      cost += timer_->stage({whole, batch.size()}, stage, scratch_, StepTimer::Share::own);
    } else {
      cost = timer_->stage({whole, batch.size()}, stage, scratch_, StepTimer::Share::all);
    }
    cost.us =
        std::max(cost.us, backend.least_prompt_us() * static_cast<double>(timer_->lowering().latent_layers(stage)));
    if (cost.us > slowest.us) slowest = cost;
  }
  return slowest;
}

const StepCost& StepTable::decode_node(int level) {
  Node& node = decode_[static_cast<size_t>(level)];
  if (!node.known) node = {true, price_decode(running_at(level))};
  return node.cost;
}

double StepTable::prompts_at(int level) const { return std::min(prompts_per_step_, doubled(level)); }

const StepCost& StepTable::prefill_node(int prompt_level, int running_level) {
  Node& node = prefill_[static_cast<size_t>(prompt_level * kBesideLevels + running_level)];
  if (!node.known) node = {true, price_prefill(prompts_at(prompt_level), beside_at(running_level))};
  return node.cost;
}

StepCost StepTable::decode(double running) {
  const auto [level, share] = place(running, kDecodeLevels, running_at);
  return mix(decode_node(level), decode_node(level + 1), share);
}

StepCost StepTable::prefill(double prompts, double running) {
  const auto [row, down] = place(prompts, kBatchLevels, doubled);
  const auto [column, across] = place(running, kBesideLevels, beside_at);
  const auto at = [&, column = column, across = across](int level) {  // clang 14 captures no bindings by themselves
    const StepCost& left = prefill_node(level, column);
    return across > 0 ? mix(left, prefill_node(level, column + 1), across) : left;
  };
  if (prompts >= prompts_per_step_ || down <= 0) return at(prompts >= prompts_per_step_ ? kBatchLevels - 1 : row);
  const double low = prompts_at(row), high = prompts_at(row + 1);
  return mix(at(row), at(row + 1), high > low ? (prompts - low) / (high - low) : 0);
}

double StepTable::prefill_latency_us(double prompts) {
  if (timer_->stages() == 1) return 0;
  const models::BatchPart part{prompts / attention_dp_, chunk_tokens(), std::llround(lengths_.cached), true, false};
  double sum = 0, slowest = 0;
  for (int stage = 0; stage < timer_->stages(); ++stage) {
    const double us = timer_->stage({&part, 1}, stage, scratch_).us;
    sum += us;
    slowest = std::max(slowest, us);
  }
  return sum - slowest;
}

}  // namespace drydock::simulator
