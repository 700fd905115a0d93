#include "simulator/worker.h"

#include <algorithm>
#include <utility>

namespace drydock::simulator {

Worker::Worker(const scheduler::Policy& policy, int ranks, int64_t kv_blocks, int64_t block_tokens, StepPrice& price)
    : price_(&price), growth_(policy.decode_growth), balances_(policy.balance_steps > 0 && ranks > 1) {
  const auto count = static_cast<size_t>(ranks);
  static const scheduler::Batch kNothing;
  for (size_t r = 0; r < count; ++r) ranks_.emplace_back(policy, kv_blocks, block_tokens);
  parts_.resize(count, Part{&kNothing});
  rank_steps_.resize(count);
}

const scheduler::Progress& Worker::end_batch(size_t rank) {
  Part& p = parts_[rank];
  p.touched = true;
  p.open = false;
  return ranks_[rank].complete(std::exchange(p.ran, 0));
}

void Worker::renew(size_t rank, bool exact, bool admits) {
  Part& p = parts_[rank];
  scheduler::Scheduler& s = ranks_[rank];
  if (p.open) end_batch(rank);  // touched after its steps were counted: none of them was anyone's last
  p.batch = &s.next_batch(exact ? 1 : scheduler::kUnbounded, admits);
  const scheduler::Batch& b = *p.batch;
  p.retries = b.empty() && s.waiting() > 0 && !s.blocked();
  p.touched = p.retries;
  p.open = !b.empty();
  p.plain = b.prompts.empty() && b.swapped_in + b.swapped_out == 0;
  renewed_.push_back(static_cast<int>(rank));
  rank_steps_[rank] = {};
  if (b.empty()) return;
  rank_steps_[rank] = price_->rank_step({static_cast<double>(b.decodes.size()), b.decode_context, b.prompts,
                                         static_cast<double>(b.swapped_in + b.swapped_out)},
                                        growth_);
}

// Whether waiting prompts may start in the next step, as Policy::balance_steps says; if not, `most` is lowered to the
// steps until that may change by itself.
bool Worker::may_admit(int64_t& most) {
  const scheduler::Policy& policy = ranks_.front().policy();
  if (balance_from_ < 0) balance_from_ = steps_;
  bool all_decode = true, all_could = true, any_waits = false;
  for (const scheduler::Scheduler& s : ranks_) {
    all_decode &= s.decodes();
    all_could &= s.could_admit();
    any_waits |= s.waiting() > 0;
  }
  if (all_could) {
    balance_from_ = -1;  // from the end of the step, or steps, about to begin
    if (all_decode && balance_waited_ < policy.balance_wait) {
      ++balance_waited_;
      most = 1;
      return false;
    }
    balance_waited_ = all_decode ? 0 : balance_waited_;
    return true;
  }
  if (!all_decode) {
    balance_from_ = -1;
    return true;
  }
  const int64_t left = policy.balance_steps - 1 - (steps_ - balance_from_) % policy.balance_steps;
  if (left == 0) return true;
  if (any_waits) most = std::min(most, left);
  return false;
}

void Worker::start(double now_us, bool exact) {
  run_ = {now_us, 0, {}, scheduler::kUnbounded, 0, 0};
  renewed_.clear();
  const bool admits = !balances_ || may_admit(run_.steps);
  bool any = false, line = true;
  for (size_t r = 0; r < parts_.size(); ++r) {
    Part& p = parts_[r];
    if (p.touched || balances_) renew(r, exact, admits);
    const scheduler::Batch& b = *p.batch;
    if (p.retries) run_.steps = 1;
    if (b.empty()) continue;
    any = true;
    line &= p.plain;
    run_.steps = std::min(run_.steps, b.repeats - p.ran);
    const auto decodes = static_cast<double>(b.decodes.size());
    run_.decodes += decodes;
    run_.tokens += growth_ * (decodes - static_cast<double>(b.lingering));
    // Its contexts have grown out of what it was priced for.
    if (rank_steps_[r].steps <= 0)
      rank_steps_[r] = price_->rank_step(
          {decodes, b.decode_context + growth_ * static_cast<double>(p.ran) * decodes, {}, 0}, growth_);
  }
  if (balance_from_ < 0 && waiting() > 0) run_.steps = 1;  // whether they all could may have changed after it
  busy_ = any;
  if (!any) return;
  run_.line = price_->line(rank_steps_);
  run_.steps = line ? std::min(run_.steps, run_.line.steps) : 1;
  if (!line) {
    run_.drain_us = price_->drain_us(rank_steps_) * factor;
    run_.line.growth_us = 0;
  }
  run_.line.first_us *= factor;
  run_.line.growth_us *= factor;
}

void Worker::settle() {
  for (size_t r = 0; r < parts_.size(); ++r) {
    Part& p = parts_[r];
    if (p.ran == 0 || p.touched) continue;  // who came in the step under way has to hear of its end
    ranks_[r].complete(std::exchange(p.ran, 0));
    p.batch = &ranks_[r].next_batch(scheduler::kUnbounded);  // the rest of the same
  }
}

bool Worker::interrupt(int rank, double now_us) {
  const scheduler::Scheduler& s = ranks_[static_cast<size_t>(rank)];
  const scheduler::Policy& p = s.policy();
  // Where waiting is counted in steps it matters in which one a request came.
  const bool counts = p.wait_steps > 0 || p.poll_steps > 1 || p.balance_steps > 0;
  return (counts || !s.blocked()) && cut(now_us);
}

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

int64_t Worker::cached_prefix_tokens(std::span<const uint64_t> hashes, int64_t prompt_tokens) const {
  int64_t most = 0;
  for (const scheduler::Scheduler& s : ranks_) most = std::max(most, s.cached_prefix_tokens(hashes, prompt_tokens));
  return most;
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
