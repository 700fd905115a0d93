// KV blocks of requests that run: who gets more, what they will need, who has to go.
#include <algorithm>
#include <cassert>
#include <cmath>

#include "scheduler/scheduler.h"

namespace drydock::scheduler {

bool Scheduler::grow(Running& r, double tokens) {
  if (tokens <= static_cast<double>(r.room)) return true;
  Slot& s = slot(r.id);
  const int64_t wanted = blocks_of(tokens) - static_cast<int64_t>(s.blocks.size());
  if (wanted > 0 && !kv_.allocate(wanted, s.blocks)) return false;
  r.room = static_cast<int64_t>(s.blocks.size()) << shift_;
  return true;
}

// False: the request itself had to go, with all behind it.
bool Scheduler::grow_or_preempt(size_t index, double tokens) {
  while (!grow(running_[index], tokens)) {
    const bool itself = index + 1 == running_.size();
    preempt_last();
    if (itself) return false;
  }
  return true;
}

// Before any request gives its blocks back, as step by step: what is evicted is the same then.
void Scheduler::grow_all(int64_t steps) {
  for (Running& r : running_) {
    if (!r.decoding || !takes_part(r)) continue;
    const bool got = grow(r, done_of(r) + growth_ * static_cast<double>(steps));
    assert(got);
    static_cast<void>(got);
  }
}

// Those in decode get the blocks of what they have done, and of the step being filled where they are in it.
void Scheduler::grow_rooms() {
  if (!lazy_) return;
  for (Running& r : running_) {
    if (!r.in_decode()) continue;
    const bool got = grow(r, done_of(r) + (r.decoding && takes_part(r) ? growth_ : 0));
    assert(got);
    static_cast<void>(got);
  }
  synced_ = clock_;
}

void Scheduler::preempt_last() {
  const Running r = running_.back();
  running_.pop_back();
  preempted_ = changed_ = true;
  if (r.lingers > 0) return leave(r.id);
  Slot& s = slot(r.id);
  ++counters_.preemptions;
  const double done = done_of(r);
  s.left = left_of(r);
  if (policy_.preemption == Preemption::swap && r.decoding) {
    s.swapped = static_cast<int64_t>(std::ceil(done));
    batch_.swapped_out += s.swapped;
  } else if (r.decoding) {
    // With the last token, whose KV was not there yet: as far as a step of decode would have come.
    s.target = static_cast<int64_t>(done + growth_);
  }
  s.published = 0;
  kv_.release(s.blocks);
  s.eligible = steps_;
  enqueue(r.id);
}

// Blocks that those in decode are to have and have not got.
int64_t Scheduler::owed_blocks() const {
  int64_t sum = 0;
  if (!lazy_) return sum;
  for (const Running& r : running_) {
    if (!r.in_decode()) continue;
    const double next = in_flight_ && r.decoding && takes_part(r) ? growth_ : 0;
    sum += std::max<int64_t>(0, blocks_of(done_of(r) + next) - (r.room >> shift_));
  }
  return sum;
}

// No less than what those in decode will have wanted, `steps` steps on, beyond what they hold.
int64_t Scheduler::owed_most(int64_t steps) const {
  const double grown = growth_ * static_cast<double>(clock_ - synced_ + steps);
  const auto each = static_cast<int64_t>(grown / static_cast<double>(block_tokens())) + 2;
  return each * static_cast<int64_t>(running_.size());
}

bool Scheduler::fits_for(int64_t steps) const {
  if (kv_.available() >= owed_most(steps)) return true;
  const double grown = growth_ * static_cast<double>(steps);
  int64_t wanted = 0;
  for (const Running& r : running_)
    if (r.in_decode())
      wanted += std::max<int64_t>(0, blocks_of(done_of(r) + (r.decoding ? grown : 0)) - (r.room >> shift_));
  return wanted <= kv_.available();
}

}  // namespace drydock::scheduler
