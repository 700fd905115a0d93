// Who joins the running requests, and how many KV blocks are kept for those that run.
#include <algorithm>
#include <cassert>
#include <cmath>

#include "scheduler/scheduler.h"

namespace drydock::scheduler {

void Scheduler::admit() {
  if (preempted_) return;
  while (!waiting_.empty()) {
    if (running() >= policy_.max_sequences || budget_ <= 0) {
      blocked_ = true;
      return;
    }
    if (slot(waiting_.front()).eligible > steps_) return;
    if (!admit_head()) {
      blocked_ = true;
      return;
    }
  }
}

// KV blocks that running requests are taken to need beyond what they hold.
int64_t Scheduler::reserved_blocks() const {
  if (policy_.reserve <= 0) return 0;
  int64_t sum = 0;
  for (const Running& r : running_)
    sum += reserve_of(std::max(r.done, static_cast<double>(r.target)), r.left, r.room >> shift_);
  for (const RequestId id : pulling_) {
    const Slot& s = slots_[static_cast<size_t>(id)];
    sum += reserve_of(static_cast<double>(s.target), s.left, static_cast<int64_t>(s.blocks.size()));
  }
  return sum;
}

int64_t Scheduler::reserve_of(double tokens, int64_t left, int64_t room) const {
  const double output = policy_.reserve * static_cast<double>(std::min(left, policy_.reserve_most));
  return std::max<int64_t>(0, blocks_of(tokens + output * growth_ + static_cast<double>(spare_tokens_)) - room);
}

int64_t Scheduler::own_reserve(const Slot& s) const {
  const int64_t output = std::min(s.left, policy_.reserve_most);
  const double share = policy_.reserves_own_output ? 1 : policy_.reserve;
  return static_cast<int64_t>(std::ceil(share * static_cast<double>(output) * growth_)) + spare_tokens_;
}

bool Scheduler::has_room(const Slot& s, int64_t cached, int64_t held_now, const KvBlocks::Match& match) const {
  const bool reserves = policy_.reserve > 0 || policy_.reserves_own_output;
  const int64_t last = reserves ? std::max(held_now, s.target + own_reserve(s)) : held_now;
  const int64_t wanted = blocks_of(static_cast<double>(last)) - (cached >> shift_);
  const int64_t kept = running() > 0 ? reserved_blocks() + watermark_blocks_ : 0;
  return kv_.available() - match.idle >= wanted + kept;
}

bool Scheduler::admit_head() {
  const RequestId id = waiting_.front();
  Slot& s = slot(id);
  const bool comes_whole = s.swapped > 0 || (s.request.prefilled && !s.started);
  KvBlocks::Match match;
  if (!comes_whole && !s.hashes.empty())
    match =
        kv_.match(std::span(s.hashes).first(std::min(s.hashes.size(), static_cast<size_t>((s.target - 1) >> shift_))));
  const int64_t cached = match.blocks << shift_;
  const int64_t chunk = comes_whole ? 0 : chunk_of(s.target - cached);
  if (!comes_whole && chunk == 0) return false;
  const int64_t held_now = s.swapped > 0 ? s.swapped + static_cast<int64_t>(std::ceil(room_growth_))
                           : comes_whole ? s.target
                                         : cached + chunk;
  if (!has_room(s, cached, held_now, match)) return false;
  waiting_.pop_front();
  waiting_tokens_ -= s.target;
  if (match.blocks > 0) kv_.share(std::span(s.hashes).first(static_cast<size_t>(match.blocks)), s.blocks);
  s.published = s.blocks.size();
  const bool got = kv_.allocate(blocks_of(static_cast<double>(held_now)) - match.blocks, s.blocks);
  assert(got);
  static_cast<void>(got);
  if (!s.started) {
    counters_.prompt_tokens += s.request.prompt_tokens;
    counters_.cached_tokens += cached;
  }
  if (s.swapped > 0) {
    batch_.swapped_in += s.swapped;
    const auto done = static_cast<double>(s.swapped);
    s.swapped = 0;
    s.target = std::min(s.target, static_cast<int64_t>(done));
    const size_t index = join(id, done);
    if (policy_.mixes) schedule_one(index, 0);
  } else if (comes_whole) {
    s.phase = Phase::pulling;
    pulling_.push_back(id);
    pulls_.push_back(id);
  } else {
    schedule_one(join(id, static_cast<double>(cached)), chunk);
  }
  return true;
}

// Puts an admitted request among the running ones.
size_t Scheduler::join(RequestId id, double done) {
  Slot& s = slot(id);
  s.phase = Phase::running;
  const Running r{id, 0, done, s.target, s.left, static_cast<int64_t>(s.blocks.size()) << shift_, 0, false};
  auto at = running_.end();
  if (policy_.order == Order::priority)
    while (at != running_.begin() && before(id, std::prev(at)->id)) --at;
  const auto index = static_cast<size_t>(at - running_.begin());
  running_.insert(at, r);
  return index;
}

}  // namespace drydock::scheduler
