// Who joins the running requests, and how many KV blocks are kept for those that run.
#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "scheduler/scheduler.h"

namespace drydock::scheduler {

// Which requests this step knows of. Steps of decode count towards the next look; one that came before a look is seen.
void Scheduler::poll(bool after_prompts) {
  if (policy_.poll_steps == 1) {
    seen_ = sequence_;
    return;
  }
  if (running_.empty() || after_prompts)
    polled_ = steps_;
  else
    polled_ += (steps_ - polled_) / policy_.poll_steps * policy_.poll_steps;
  if (polled_ == steps_) seen_ = sequence_;
  for (const RequestId id : waiting_)
    if (slot(id).eligible - policy_.result_delay <= polled_) seen_ = std::max(seen_, slot(id).sequence + 1);
}

bool Scheduler::decodes() const {
  return std::any_of(running_.begin(), running_.end(), [](const Running& r) { return r.in_decode(); });
}

bool Scheduler::could_admit() const {
  if (waiting_.empty() || running() >= policy_.max_sequences) return false;
  const Slot& head = slot(waiting_.front());
  // As next_batch() will see it: idle, nothing has to be waited for.
  if (!running_.empty() && head.eligible > steps_) return false;
  int64_t budget = policy_.max_tokens;
  for (const Running& r : running_) budget -= r.in_decode() ? policy_.decode_tokens : 0;
  return entry_of(waiting_.front(), budget, true, owed_blocks()).has_value();
}

// Whether the prompts that could join wait for more of them: from when the first of them came.
bool Scheduler::waits_for_more() {
  waits_from_ = -1;
  if (policy_.wait_steps == 0 || (decodes_.empty() && !all_scheduled_) || waiting_.empty()) return false;
  const Slot& head = slot(waiting_.front());
  if (!may_come(head) || steps_ - head.eligible >= policy_.wait_steps) return false;
  int64_t tokens = policy_.max_tokens - budget_, sequences = running();
  for (const RequestId id : waiting_) {
    const Slot& s = slot(id);
    if (!may_come(s) || sequences++ >= policy_.max_sequences) break;
    if (tokens + s.target > policy_.max_tokens) {
      if (policy_.chunks) tokens = policy_.max_tokens;
      break;
    }
    tokens += s.target;
  }
  if (static_cast<double>(tokens) >= policy_.wait_share * static_cast<double>(policy_.max_tokens)) return false;
  waits_from_ = head.eligible;
  return true;
}

void Scheduler::admit() {
  if (preempted_ || !admits_ || waits_for_more()) return;
  while (!waiting_.empty()) {
    if (running() >= policy_.max_sequences || budget_ <= 0) {
      blocked_ = true;
      return;
    }
    if (!may_come(slot(waiting_.front()))) return;
    if (!admit_head()) {
      blocked_ = true;
      return;
    }
  }
}

// KV blocks that running requests are taken to need beyond what they hold, or are owed.
int64_t Scheduler::reserved_blocks() const {
  if (policy_.reserve <= 0) return 0;
  int64_t sum = 0;
  for (const Running& r : running_) {
    const double done = done_of(r);
    const int64_t room = lazy_ && r.in_decode() ? std::max(r.room >> shift_, blocks_of(done)) : r.room >> shift_;
    sum += reserve_of(std::max(done, static_cast<double>(r.target)), left_of(r), room);
  }
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

// `owed`: blocks that decoding requests have yet to get.
bool Scheduler::has_room(const Slot& s, int64_t cached, int64_t held_now, const KvBlocks::Match& match,
                         int64_t owed) const {
  const bool reserves = policy_.reserve > 0 || policy_.reserves_own_output;
  const int64_t last = reserves ? std::max(held_now, s.target + own_reserve(s)) : held_now;
  const int64_t wanted = blocks_of(static_cast<double>(last)) - (cached >> shift_);
  const int64_t kept = running() > 0 ? reserved_blocks() + watermark_blocks_ : 0;
  return kv_.available() - match.idle - owed >= wanted + kept;
}

// nullopt: the step has no budget for it, or the cache no room.
std::optional<Scheduler::Entry> Scheduler::entry_of(RequestId id, int64_t budget, bool alone, int64_t owed) const {
  const Slot& s = slot(id);
  Entry e;
  e.whole = s.swapped > 0 || (s.request.prefilled && !s.started);
  if (!e.whole && !s.hashes.empty())
    e.match =
        kv_.match(std::span(s.hashes).first(std::min(s.hashes.size(), static_cast<size_t>((s.target - 1) >> shift_))));
  e.cached = e.match.blocks << shift_;
  e.chunk = e.whole ? 0 : chunk_of(s.target - e.cached, budget, alone);
  if (!e.whole && e.chunk == 0) return std::nullopt;
  e.held_now = s.swapped > 0 ? s.swapped + static_cast<int64_t>(std::ceil(room_growth_))
               : e.whole     ? s.target
                             : e.cached + e.chunk;
  if (!has_room(s, e.cached, e.held_now, e.match, owed)) return std::nullopt;
  return e;
}

// The same for the step being filled: by a bound, and where that says no, by what is.
std::optional<Scheduler::Entry> Scheduler::entry_now(RequestId id) {
  const std::optional<Entry> entry = entry_of(id, budget_, chunks_.empty(), lazy_ ? owed_most(1) : 0);
  if (entry || !lazy_) return entry;
  grow_rooms();
  return entry_of(id, budget_, chunks_.empty(), 0);
}

bool Scheduler::admit_head() {
  const RequestId id = waiting_.front();
  const std::optional<Entry> entry = entry_now(id);
  if (!entry) return false;
  const KvBlocks::Match& match = entry->match;
  const int64_t cached = entry->cached, chunk = entry->chunk;
  Slot& s = slot(id);
  waiting_.pop_front();
  waiting_tokens_ -= s.target;
  if (match.blocks > 0) kv_.share(std::span(s.hashes).first(static_cast<size_t>(match.blocks)), s.blocks);
  s.published = s.blocks.size();
  const bool got = kv_.allocate(blocks_of(static_cast<double>(entry->held_now)) - match.blocks, s.blocks);
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
  } else if (entry->whole) {
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
  Running r{id, 0, done, s.target, s.left, static_cast<int64_t>(s.blocks.size()) << shift_, 0, false, false};
  if (done >= static_cast<double>(s.target)) {
    r.decoding = true;
    r.done -= growth_ * static_cast<double>(clock_);
    r.left += clock_;
  }
  if (r.decoding)
    changed_ = true;
  else
    ++prompting_;
  if (in_flight_) joined_late_ = true, r.chunk = -1;
  auto at = running_.end();
  if (policy_.order == Order::priority)
    while (at != running_.begin() && before(id, std::prev(at)->id)) --at;
  const auto index = static_cast<size_t>(at - running_.begin());
  running_.insert(at, r);
  return index;
}

}  // namespace drydock::scheduler
