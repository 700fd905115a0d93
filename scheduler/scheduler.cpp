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
      kv_(kv_blocks, policy.prefix_cache),
      shift_(std::countr_zero(static_cast<uint64_t>(block_tokens))),
      watermark_blocks_(static_cast<int64_t>(policy.watermark * static_cast<double>(kv_blocks))),
      growth_(policy.counts_tokens ? 1 : policy.decode_growth),
      room_growth_(policy.counts_tokens ? static_cast<double>(policy.decode_tokens) : policy.decode_growth),
      spare_tokens_(policy.counts_tokens ? policy.decode_tokens - 1 : 0) {
  assert(std::has_single_bit(static_cast<uint64_t>(block_tokens)));
  assert(policy.max_tokens > 0 && policy.max_sequences > 0 && policy.decode_growth >= 1);
}

int64_t Scheduler::blocks_of(double tokens) const {
  const auto whole = static_cast<int64_t>(std::ceil(tokens - 1e-9));
  return (whole + block_tokens() - 1) >> shift_;
}

bool Scheduler::can_run(const Request& r) const {
  const int64_t steps = r.decode_steps < 0 ? r.output_tokens - 1 : r.decode_steps;
  const double output =
      std::max(static_cast<double>(r.output_tokens), static_cast<double>(steps + 1) * growth_);
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
  if (in_flight_ && policy_.result_delay > 0) new_.push_back(id);
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

const Batch& Scheduler::next_batch(int64_t most_repeats) {
  assert(!in_flight_);
  chunks_.clear();
  decodes_.clear();
  pulls_.clear();
  batch_ = {};
  budget_ = policy_.max_tokens;
  blocked_ = preempted_ = false;
  for (Running& r : running_) r.scheduled = false, r.chunk = 0;
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
  batch_.decodes = decodes_;
  batch_.pulls = pulls_;
  in_flight_ = !batch_.empty();
  if (in_flight_) ++steps_;
  batch_.repeats = repeats(most_repeats);
  return batch_;
}

// Gives running requests their share of the step, in order.
void Scheduler::schedule(bool prompts, bool decodes) {
  for (size_t i = 0; i < running_.size() && budget_ > 0; ++i) {
    const Running& r = running_[i];
    if (r.decodes()) {
      if (decodes) schedule_one(i, 0);
    } else if (prompts) {
      schedule_one(i, chunk_of(r.target - static_cast<int64_t>(r.done)));
    }
  }
}

// Tokens of a prompt that the step can take; 0: none.
int64_t Scheduler::chunk_of(int64_t fresh) const {
  if (policy_.chunks) return std::min(fresh, budget_);
  return fresh <= budget_ || (fresh > policy_.max_tokens && chunks_.empty()) ? fresh : 0;
}

void Scheduler::schedule_one(size_t index, int64_t chunk) {
  Running* r = &running_[index];
  if (r->lingers == 0) {
    const bool decodes = r->decodes();
    if (!decodes && chunk == 0) return;
    if (!grow_or_preempt(index, r->done + (decodes ? room_growth_ : static_cast<double>(chunk)))) return;
    r = &running_[index];
  }
  r->scheduled = true;
  if (r->decodes()) {
    decodes_.push_back(r->id);
    batch_.lingering += r->lingers > 0;
    batch_.decode_context += r->done;
    budget_ -= policy_.decode_tokens;
    return;
  }
  r->chunk = chunk;
  budget_ -= chunk;
  const auto context = static_cast<int64_t>(r->done);
  chunks_.push_back({r->id, chunk, context, context + chunk >= r->target});
}

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

void Scheduler::preempt_last() {
  const Running r = running_.back();
  running_.pop_back();
  preempted_ = true;
  if (r.lingers > 0) return leave(r.id);
  Slot& s = slot(r.id);
  ++counters_.preemptions;
  s.left = r.left;
  if (policy_.preemption == Preemption::swap && r.decodes()) {
    s.swapped = static_cast<int64_t>(std::ceil(r.done));
    batch_.swapped_out += s.swapped;
  } else if (r.decodes()) {
    // With the last token, whose KV was not there yet: as far as a step of decode would have come.
    s.target = static_cast<int64_t>(r.done + growth_);
  }
  s.published = 0;
  kv_.release(s.blocks);
  s.eligible = steps_;
  enqueue(r.id);
}

int64_t Scheduler::repeats(int64_t most) const {
  if (!chunks_.empty() || decodes_.empty() || preempted_ || decodes_.size() < running_.size()) return 1;
  if (batch_.swapped_in > 0 || most <= 1) return 1;
  int64_t steps = most;
  for (const Running& r : running_) steps = std::min(steps, r.lingers > 0 ? r.lingers : r.left);
  if (!waiting_.empty() && !blocked_) steps = std::min(steps, eligible_in());
  steps = std::max<int64_t>(steps, 1);
  if (fits_for(steps)) return steps;
  int64_t low = 1;
  while (low < steps) {
    const int64_t middle = (low + steps + 1) / 2;
    fits_for(middle) ? low = middle : steps = middle - 1;
  }
  return low;
}

// Steps until the first waiting request may be admitted.
int64_t Scheduler::eligible_in() const {
  return std::max<int64_t>(1, slots_[static_cast<size_t>(waiting_.front())].eligible - steps_ + 1);
}

bool Scheduler::fits_for(int64_t steps) const {
  const double grown = policy_.decode_growth * static_cast<double>(steps);
  const auto each = static_cast<int64_t>(grown / static_cast<double>(block_tokens())) + 2;
  if (kv_.available() >= each * static_cast<int64_t>(running_.size())) return true;
  int64_t wanted = 0;
  for (const Running& r : running_)
    if (r.lingers == 0) wanted += std::max<int64_t>(0, blocks_of(r.done + grown) - (r.room >> shift_));
  return wanted <= kv_.available();
}

void Scheduler::publish(Slot& s, double done) {
  const size_t full = std::min(static_cast<size_t>(static_cast<int64_t>(done) >> shift_), s.hashes.size());
  for (; s.published < full; ++s.published) kv_.publish(s.blocks[s.published], s.hashes[s.published]);
}

// One request's share of the step is done. True: it has its last token.
bool Scheduler::advance(Running& r, int64_t steps) {
  Slot& s = slot(r.id);
  if (r.decodes()) {
    const int64_t tokens = policy_.counts_tokens ? std::exchange(s.won, 1) : steps;
    r.done += growth_ * static_cast<double>(tokens);
    r.left -= tokens;
  } else {
    r.done += static_cast<double>(r.chunk);
    counters_.computed_tokens += r.chunk;
    if (!r.decodes()) return publish(s, r.done), false;
    if (s.started) --r.left;  // a recomputed request makes its next token
  }
  if (!s.hashes.empty()) publish(s, r.done);
  if (!s.started) {
    s.started = true;
    first_.push_back(r.id);
  }
  return r.left <= 0;
}

const Progress& Scheduler::complete(int64_t steps) {
  assert(in_flight_ && steps >= 1 && steps <= batch_.repeats);
  in_flight_ = false;
  steps_ += steps - 1;
  for (const RequestId id : new_) slot(id).eligible = steps_ + policy_.result_delay;
  new_.clear();
  first_.clear();
  finished_.clear();
  if (steps > 1) grow_all(steps);
  size_t kept = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& r = running_[i];
    bool gone = slot(r.id).stopping;
    if (gone) {
      leave(r.id);
    } else if (r.scheduled && r.lingers > 0) {
      r.lingers -= static_cast<int32_t>(steps);
      if ((gone = r.lingers <= 0)) leave(r.id);
    } else if (r.scheduled && advance(r, steps)) {
      gone = finish(r);
    }
    if (gone) continue;
    if (kept != i) running_[kept] = r;
    ++kept;
  }
  running_.resize(kept);
  progress_ = {first_, finished_};
  return progress_;
}

// Before any request gives its blocks back, as step by step: what is evicted is the same then.
void Scheduler::grow_all(int64_t steps) {
  for (Running& r : running_) {
    if (!r.scheduled || r.lingers > 0) continue;
    const bool got = grow(r, r.done + policy_.decode_growth * static_cast<double>(steps));
    assert(got);
    static_cast<void>(got);
  }
}

// True: it leaves the batch at once.
bool Scheduler::finish(Running& r) {
  finished_.push_back(r.id);
  if (slot(r.id).request.keeps_kv) {
    slot(r.id).phase = Phase::finished;
    return true;
  }
  r.lingers = policy_.result_delay;
  if (r.lingers > 0) return false;
  leave(r.id);
  return true;
}

void Scheduler::leave(RequestId id) {
  Slot& s = slot(id);
  kv_.release(s.blocks);
  s.phase = Phase::none;
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
        s.stopping = true;
        blocked_ = false;
        return;
      }
      std::erase_if(running_, [id](const Running& r) { return r.id == id; });
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
    if (r.id == id) left = r.left;
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
    if (blocks << shift_ != r.room || r.done > static_cast<double>(r.room) + 1e-6)
      throw std::logic_error("a running request has more tokens than its blocks hold");
  }
}

}  // namespace drydock::scheduler
