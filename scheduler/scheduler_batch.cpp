// Fills a step with the requests that run.
#include <algorithm>

#include "scheduler/scheduler.h"

namespace drydock::scheduler {

// All in decode, and nobody else: no order among them matters.
bool Scheduler::takes_all() {
  const auto count = static_cast<int64_t>(everyone_.size());
  if (!lazy_ || count == 0 || prompting_ > 0 || changed_) return false;
  if ((count - 1) * policy_.decode_tokens >= budget_ || !fits_for(1)) return false;
  all_scheduled_ = true;
  budget_ -= count * policy_.decode_tokens;
  batch_.lingering = lingering_;
  batch_.decode_context =
      context_ + growth_ * static_cast<double>(clock_) * static_cast<double>(decoders_) + lingering_context_;
  return true;
}

// Gives running requests their share of the step, in order.
void Scheduler::schedule(bool prompts, bool decodes) {
  if ((decodes && takes_all()) || (!decodes && !changed_ && prompting_ == 0)) return;
  const bool spacious =
      lazy_ && policy_.chunks && kv_.available() - owed_most(1) > (budget_ >> shift_) + 2 * prompting_;
  if (!spacious) grow_rooms();
  for (size_t i = 0; i < running_.size() && budget_ > 0; ++i) {
    const Running& r = running_[i];
    if (r.in_decode()) {
      if (decodes) schedule_one(i, 0, spacious);
    } else if (prompts) {
      schedule_one(i, chunk_of(r.target - static_cast<int64_t>(r.done), budget_, chunks_.empty()));
    }
  }
}

// As if everyone_ had been scheduled one by one.
void Scheduler::schedule_each() {
  all_scheduled_ = false;
  decodes_ = everyone_;
  for (Running& r : running_)
    if (r.in_decode()) r.scheduled = r.chunk >= 0;
}

// Tokens of a prompt that a step can take that has `budget` left, and no prompt yet if `alone`; 0: none.
int64_t Scheduler::chunk_of(int64_t fresh, int64_t budget, bool alone) const {
  if (policy_.chunks) return std::min(fresh, budget);
  return fresh <= budget || (fresh > policy_.max_tokens && alone) ? fresh : 0;
}

void Scheduler::schedule_one(size_t index, int64_t chunk, bool has_room) {
  Running* r = &running_[index];
  if (r->lingers == 0) {
    if (!r->decoding && chunk == 0) return;
    const double more = r->decoding ? room_growth_ : static_cast<double>(chunk);
    if (!has_room && !grow_or_preempt(index, done_of(*r) + more)) return;
    r = &running_[index];
  }
  if (r->in_decode() && all_scheduled_) schedule_each();
  r->scheduled = true;
  if (r->in_decode()) {
    decodes_.push_back(r->id);
    batch_.lingering += r->lingers > 0;
    batch_.decode_context += done_of(*r);
    budget_ -= policy_.decode_tokens;
    return;
  }
  r->chunk = chunk;
  budget_ -= chunk;
  const auto context = static_cast<int64_t>(r->done);
  chunks_.push_back({r->id, chunk, context, context + chunk >= r->target});
}

}  // namespace drydock::scheduler
