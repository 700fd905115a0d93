#include "scheduler/scheduler.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace drydock::scheduler {

Scheduler::Scheduler(const Policy& policy, int64_t kv_blocks, int64_t block_tokens)
    : policy_(policy),
      kv_(kv_blocks, policy.prefix_cache, !policy.prefix_cache && !policy.counts_tokens),
      shift_(std::countr_zero(static_cast<uint64_t>(block_tokens))),
      watermark_blocks_(static_cast<int64_t>(policy.watermark * static_cast<double>(kv_blocks))),
      growth_(policy.counts_tokens ? 1 : policy.decode_growth),
      room_growth_(policy.counts_tokens ? static_cast<double>(policy.decode_tokens) : policy.decode_growth),
      spare_tokens_(policy.counts_tokens ? policy.decode_tokens - 1 : 0),
      lazy_(!policy.prefix_cache && !policy.counts_tokens) {
  assert(std::has_single_bit(static_cast<uint64_t>(block_tokens)));
  assert(policy.max_tokens > 0 && policy.max_sequences > 0 && policy.decode_growth >= 1);
}

int64_t Scheduler::blocks_of(double tokens) const {
  const auto whole = static_cast<int64_t>(std::ceil(tokens - 1e-9));
  return (whole + block_tokens() - 1) >> shift_;
}

bool Scheduler::can_run(const Request& r) const {
  const int64_t steps = r.decode_steps < 0 ? r.output_tokens - 1 : r.decode_steps;
  const double output = std::max(static_cast<double>(r.output_tokens), static_cast<double>(steps + 1) * growth_);
  return blocks_of(static_cast<double>(r.prompt_tokens + spare_tokens_) + std::ceil(output)) <= kv_.total();
}

int64_t Scheduler::cached_prefix_tokens(std::span<const uint64_t> hashes, int64_t prompt_tokens) const {
  const auto most = static_cast<size_t>(std::max<int64_t>(0, prompt_tokens - 1) >> shift_);
  return kv_.match(hashes.first(std::min(most, hashes.size()))).blocks << shift_;
}

bool Scheduler::before(RequestId a, RequestId b) const {
  const Slot &x = slots_[static_cast<size_t>(a)], &y = slots_[static_cast<size_t>(b)];
  if (policy_.order == Order::priority && x.request.priority != y.request.priority)
    return x.request.priority < y.request.priority;
  return x.sequence < y.sequence;
}

RequestId Scheduler::add(const Request& request) {
  assert(can_run(request));
  if (unused_.empty()) {
    unused_.push_back(static_cast<RequestId>(slots_.size()));
    slots_.emplace_back();
  }
  const RequestId id = unused_.back();
  unused_.pop_back();
  Slot& s = slot(id);
  s.request = request;
  s.hashes.clear();
  if (policy_.prefix_cache) s.hashes.assign(request.hashes.begin(), request.hashes.end());
  s.request.hashes = {};
  if (s.request.decode_steps < 0) s.request.decode_steps = request.output_tokens - 1;
  s.sequence = sequence_++;
  s.eligible = steps_ + (in_flight_ || !running_.empty() ? policy_.result_delay : 0);
  if (in_flight_) new_.push_back(id);
  s.left = s.request.decode_steps;
  s.target = request.prompt_tokens;
  s.published = 0;
  s.swapped = 0;
  s.won = 1;
  s.started = s.stopping = false;
  enqueue(id);
  if (policy_.order == Order::priority) blocked_ = false;
  return id;
}

void Scheduler::enqueue(RequestId id) {
  Slot& s = slot(id);
  s.phase = Phase::waiting;
  waiting_tokens_ += s.target;
  auto at = waiting_.end();
  while (at != waiting_.begin() && before(id, *std::prev(at))) --at;
  waiting_.insert(at, id);
}

const Batch& Scheduler::next_batch(int64_t most_repeats, bool admits) {
  assert(!in_flight_);
  poll(!chunks_.empty());
  admits_ = admits;
  chunks_.clear();
  decodes_.clear();
  pulls_.clear();
  batch_ = {};
  budget_ = policy_.max_tokens;
  blocked_ = preempted_ = all_scheduled_ = joined_late_ = false;
  if (running_.empty()) clock_ = synced_ = 0;
  if (changed_) {
    begin_count();
    for (const Running& r : running_) count(r);
  }
  // Idle, nothing has to be waited for.
  if (running_.empty() && !waiting_.empty())
    slot(waiting_.front()).eligible = std::min(slot(waiting_.front()).eligible, steps_);
  if (policy_.mixes) {
    schedule(true, true);
    admit();
  } else {
    schedule(true, false);
    admit();
    if (chunks_.empty()) {
      budget_ = policy_.max_tokens;
      schedule(false, true);
    }
  }
  batch_.prompts = chunks_;
  batch_.decodes = all_scheduled_ ? everyone_ : decodes_;
  batch_.pulls = pulls_;
  in_flight_ = !batch_.empty();
  if (in_flight_) ++steps_;
  batch_.repeats = repeats(most_repeats);
  return batch_;
}

void Scheduler::begin_count() {
  everyone_.clear();
  decoders_ = lingering_ = prompting_ = 0;
  next_end_ = INT64_MAX;
  context_ = lingering_context_ = 0;
  changed_ = false;
}

void Scheduler::count(const Running& r) {
  if (!r.in_decode()) {
    ++prompting_;
    return;
  }
  everyone_.push_back(r.id);
  if (r.decoding)
    ++decoders_, context_ += r.done, next_end_ = std::min(next_end_, r.left);
  else
    ++lingering_, lingering_context_ += r.done;
}

int64_t Scheduler::repeats(int64_t most) const {
  if (!chunks_.empty() || batch_.decodes.empty() || preempted_ || batch_.decodes.size() < running_.size()) return 1;
  if (batch_.swapped_in > 0 || most <= 1) return 1;
  int64_t steps = most;
  if (decoders_ > 0) steps = std::min(steps, next_end_ - clock_);
  if (lingering_ > 0)
    for (const Running& r : running_)
      if (r.lingers > 0) steps = std::min<int64_t>(steps, r.lingers);
  if (!waiting_.empty() && !blocked_) steps = std::min(steps, admits_in());
  steps = std::max<int64_t>(steps, 1);
  if (fits_for(steps)) return steps;
  int64_t low = 1;
  while (low < steps) {
    const int64_t middle = (low + steps + 1) / 2;
    fits_for(middle) ? low = middle : steps = middle - 1;
  }
  return low;
}

// Steps until it is to be asked again whether a waiting request joins.
int64_t Scheduler::admits_in() const {
  const int64_t now = steps_ - 1;  // of the batch just made
  int64_t next = now + kUnbounded;
  const auto wake = [&](int64_t step) {
    if (step > now) next = std::min(next, step);
  };
  const bool counts = waits_from_ >= 0;  // those behind the first are looked at, too
  for (const RequestId id : waiting_) {
    const Slot& s = slot(id);
    if (s.sequence >= seen_) wake(polled_ + policy_.poll_steps);
    wake(s.eligible);
    if (!counts) break;
  }
  if (counts) wake(waits_from_ + policy_.wait_steps);
  const bool held =
      counts || !admits_ || slot(waiting_.front()).sequence >= seen_ || slot(waiting_.front()).eligible > now;
  return held ? next - now : 1;
}

void Scheduler::publish(Slot& s, double done) {
  const size_t full = std::min(static_cast<size_t>(static_cast<int64_t>(done) >> shift_), s.hashes.size());
  for (; s.published < full; ++s.published) kv_.publish(s.blocks[s.published], s.hashes[s.published]);
}

const Progress& Scheduler::complete(int64_t steps) {
  assert(in_flight_ && steps >= 1 && steps <= batch_.repeats);
  in_flight_ = false;
  steps_ += steps - 1;
  for (const RequestId id : new_) slot(id).eligible = steps_ + policy_.result_delay;
  new_.clear();
  first_.clear();
  finished_.clear();
  progress_ = {};
  if (!lazy_ && steps > 1) grow_all(steps);
  if (!batch_.decodes.empty()) clock_ += steps;
  if (goes_on()) return progress_;
  begin_count();
  size_t kept = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& r = running_[i];
    bool gone = stopping_ > 0 && slot(r.id).stopping;
    if (gone)
      leave(r.id);
    else if (r.in_decode())
      gone = decoded(r, steps);
    else if (r.scheduled)
      gone = computed(r);
    if (gone) continue;
    r.scheduled = false;
    r.chunk = 0;
    count(r);
    if (kept != i) running_[kept] = r;
    ++kept;
  }
  running_.resize(kept);
  progress_ = {first_, finished_};
  return progress_;
}

// Nothing but the clock has changed.
bool Scheduler::goes_on() const {
  return all_scheduled_ && chunks_.empty() && lingering_ == 0 && stopping_ == 0 && !joined_late_ && clock_ < next_end_;
}

// The step is over for a request in decode. True: it leaves the batch.
bool Scheduler::decoded(Running& r, int64_t steps) {
  if (!takes_part(r)) {
    if (r.decoding && !batch_.decodes.empty()) r.done -= growth_ * static_cast<double>(steps), r.left += steps;
    return false;
  }
  if (r.lingers > 0) {
    r.lingers -= static_cast<int32_t>(steps);
    if (r.lingers <= 0) leave(r.id);
    return r.lingers <= 0;
  }
  if (!lazy_) {
    Slot& s = slot(r.id);
    if (policy_.counts_tokens) {
      const int64_t more = std::exchange(s.won, 1) - steps;
      r.done += growth_ * static_cast<double>(more);
      r.left -= more;
    }
    if (!s.hashes.empty()) publish(s, done_of(r));
  }
  return r.left <= clock_ && finish(r);
}

// The same for a piece of a prompt.
bool Scheduler::computed(Running& r) {
  Slot& s = slot(r.id);
  r.done += static_cast<double>(r.chunk);
  counters_.computed_tokens += r.chunk;
  publish(s, r.done);
  if (r.done < static_cast<double>(r.target)) return false;
  if (s.started) {
    --r.left;  // a recomputed request makes its next token
  } else {
    s.started = true;
    first_.push_back(r.id);
  }
  r.decoding = true;
  r.done -= growth_ * static_cast<double>(clock_);
  r.left += clock_;
  return r.left <= clock_ && finish(r);
}

// True: it leaves the batch at once.
bool Scheduler::finish(Running& r) {
  finished_.push_back(r.id);
  if (slot(r.id).request.keeps_kv) {
    grow(r, done_of(r));
    slot(r.id).phase = Phase::finished;
    return true;
  }
  if (policy_.result_delay == 0) {
    leave(r.id);
    return true;
  }
  r.done = done_of(r);
  r.left = 0;
  r.decoding = false;
  r.lingers = policy_.result_delay;
  return false;
}

void Scheduler::leave(RequestId id) {
  Slot& s = slot(id);
  kv_.release(s.blocks);
  s.phase = Phase::none;
  stopping_ -= s.stopping;
  s.stopping = false;
  unused_.push_back(id);
}

void Scheduler::won(RequestId id, int64_t tokens) {
  assert(policy_.counts_tokens && in_flight_ && tokens >= 1 && tokens <= policy_.decode_tokens);
  slot(id).won = tokens;
}

void Scheduler::extend_hashes(RequestId id, std::span<const uint64_t> more) {
  if (policy_.prefix_cache) slot(id).hashes.insert(slot(id).hashes.end(), more.begin(), more.end());
}

void Scheduler::arrived(RequestId id) {
  Slot& s = slot(id);
  assert(s.phase == Phase::pulling);
  std::erase(pulling_, id);
  blocked_ = false;
  s.started = true;
  join(id, static_cast<double>(s.target));
}

void Scheduler::release(RequestId id) {
  assert(slot(id).phase == Phase::finished);
  blocked_ = false;
  leave(id);
}

void Scheduler::stop(RequestId id) {
  Slot& s = slot(id);
  switch (s.phase) {
    case Phase::waiting:
      waiting_.erase(std::find(waiting_.begin(), waiting_.end(), id));
      waiting_tokens_ -= s.target;
      break;
    case Phase::pulling:
      std::erase(pulling_, id);
      break;
    case Phase::running: {
      if (in_flight_) {
        stopping_ += !s.stopping;
        s.stopping = true;
        blocked_ = false;
        return;
      }
      std::erase_if(running_, [id](const Running& r) { return r.id == id; });
      changed_ = true;
      break;
    }
    default:
      break;
  }
  blocked_ = false;
  leave(id);
}

int64_t Scheduler::generated(RequestId id) const {
  const Slot& s = slots_[static_cast<size_t>(id)];
  if (!s.started) return 0;
  int64_t left = s.left;
  for (const Running& r : running_)
    if (r.id == id) left = left_of(r);
  const double steps = static_cast<double>(s.request.decode_steps - left);
  return std::min<int64_t>(s.request.output_tokens, 1 + std::llround(steps * growth_));
}

void Scheduler::check() const {
  kv_.check();
  int64_t held = 0;
  for (const Slot& s : slots_) held += static_cast<int64_t>(s.blocks.size());
  if (held != kv_.holds()) throw std::logic_error("requests and blocks disagree on who holds what");
  for (const Running& r : running_) {
    const auto blocks = static_cast<int64_t>(slots_[static_cast<size_t>(r.id)].blocks.size());
    if (blocks << shift_ != r.room || (!lazy_ && done_of(r) > static_cast<double>(r.room) + 1e-6))
      throw std::logic_error("a running request has more tokens than its blocks hold");
  }
  if (free_blocks() < 0) throw std::logic_error("running requests have more tokens than there are blocks");
}

}  // namespace drydock::scheduler
