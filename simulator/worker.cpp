#include "simulator/worker.h"

#include <algorithm>

namespace drydock::simulator {

Worker::Worker(const scheduler::Policy& policy, int ranks, int64_t kv_blocks, int64_t block_tokens, StepPrice& price)
    : price_(&price) {
  const auto count = static_cast<size_t>(ranks);
  for (size_t r = 0; r < count; ++r) ranks_.emplace_back(policy, kv_blocks, block_tokens);
  batches_.resize(count);
  work_.resize(count);
  active_.resize(count);
}

void Worker::start(double now_us, bool exact) {
  const double growth = ranks_.front().policy().decode_growth;
  run_ = {now_us, 0, {}, scheduler::kUnbounded, 0, 0};
  bool any = false, line = true;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    const scheduler::Batch& b = ranks_[r].next_batch(exact ? 1 : scheduler::kUnbounded);
    batches_[r] = &b;
    active_[r] = !b.empty();
    work_[r] = {static_cast<double>(b.decodes.size()), b.decode_context, b.prompts,
                static_cast<double>(b.swapped_in + b.swapped_out)};
    if (b.empty() && ranks_[r].waiting() > 0 && !ranks_[r].blocked()) run_.steps = 1;  // it tries again at once
    if (b.empty()) continue;
    any = true;
    line &= b.prompts.empty() && work_[r].moved_kv_tokens <= 0;
    run_.steps = std::min(run_.steps, b.repeats);
    run_.decodes += work_[r].decodes;
    run_.tokens += growth * static_cast<double>(static_cast<int64_t>(b.decodes.size()) - b.lingering);
  }
  busy_ = any;
  if (!any) return;
  if (line) {
    run_.line = price_->line(work_, growth);
    run_.steps = std::min(run_.steps, run_.line.steps);
  } else {
    run_.line = {price_->step_us(work_), 0, 1};
    run_.drain_us = price_->drain_us(work_) * factor;
    run_.steps = 1;
  }
  run_.line.first_us *= factor;
  run_.line.growth_us *= factor;
}

bool Worker::interrupt(int rank, double now_us) { return !ranks_[static_cast<size_t>(rank)].blocked() && cut(now_us); }

bool Worker::cut(double now_us) {
  if (!busy_ || run_.steps == 1) return false;
  const int64_t steps = run_.line.steps_until(now_us - run_.start_us, run_.steps);
  if (steps == run_.steps) return false;
  run_.steps = steps;
  return true;
}

int64_t Worker::steps_over(double now_us) const {
  if (!busy_ || now_us >= run_.end_us()) return busy_ ? run_.steps : 0;
  const int64_t under_way = run_.line.steps_until(now_us - run_.start_us, run_.steps);
  return run_.line.total_us(under_way) <= now_us - run_.start_us ? under_way : under_way - 1;
}

double Worker::kv_share() const {
  double held = 0, total = 0;
  for (const scheduler::Scheduler& s : ranks_) {
    total += static_cast<double>(s.total_blocks());
    held += static_cast<double>(s.total_blocks() - s.free_blocks());
  }
  return held / total;
}

int64_t Worker::waiting() const {
  int64_t sum = 0;
  for (const scheduler::Scheduler& s : ranks_) sum += s.waiting();
  return sum;
}

int64_t Worker::running() const {
  int64_t sum = 0;
  for (const scheduler::Scheduler& s : ranks_) sum += s.running();
  return sum;
}

scheduler::Counters Worker::counters() const {
  scheduler::Counters sum;
  for (const scheduler::Scheduler& s : ranks_) {
    const scheduler::Counters& c = s.counters();
    sum.preemptions += c.preemptions;
    sum.prompt_tokens += c.prompt_tokens;
    sum.cached_tokens += c.cached_tokens;
    sum.computed_tokens += c.computed_tokens;
  }
  return sum;
}

}  // namespace drydock::simulator
