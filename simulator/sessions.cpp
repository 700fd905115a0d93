#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <vector>

#include "simulator/arrivals.h"
#include "simulator/option_check.h"

namespace drydock::simulator {
namespace {

// A session's own draws have streams of their own from here on, so that they do not depend on when answers come.
enum SessionStream : uint64_t { kStarts, kFirstSession };

void check(const SessionOptions& options) {
  check_range("sessions", options.sessions, 1, int64_t{1} << 40);
  check_range("sessions per second", options.sessions_per_s, 1e-9, 1e9);
  check_range("mean turns", options.mean_turns, 1, 1e6);
  check_range("mean think time in us", options.mean_think_us, 0, 1e15);
  check_range("system prompt tokens", options.system_tokens, 0, kMostTokens);
  check_range("most tokens of a conversation", options.most_tokens, 1, kMostTokens);
  check_range("hash tokens", options.hash_tokens, 0, kMostTokens);
}

struct Session {
  core::Random random;
  uint64_t text;          // names its text in hashes
  int64_t turns;          // still to come
  int64_t spoken_tokens;  // prompt and output of all turns so far
  RequestLengths next;    // lengths of the turn to come
};

struct Turn {
  double at_us;
  int64_t order;  // equal times: first come, first served
  int64_t slot;
  bool operator>(const Turn& other) const { return at_us != other.at_us ? at_us > other.at_us : order > other.order; }
};

class SessionLoad : public Load {
 public:
  explicit SessionLoad(const SessionOptions& options) : options_(options), starts_(options.seed, kStarts) {
    schedule_start();
  }

  double next_us() const override {
    const double turn_us = turns_.empty() ? kNever : turns_.top().at_us;
    return std::min(turn_us, start_us_);
  }
  int64_t hash_tokens() const override { return options_.hash_tokens; }
  bool done() const override { return unfinished_ == 0 && std::isinf(start_us_); }

  Arrival take() override {
    const double at_us = next_us();
    if (at_us == start_us_) return speak(start_session(), at_us);
    const int64_t slot = turns_.top().slot;
    turns_.pop();
    return speak(slot, at_us);
  }

  void finished(int64_t tag, double at_us) override {
    Session& session = slots_[static_cast<size_t>(tag)];
    if (session.turns == 0)
      free_.push_back(tag);
    else
      turns_.push({at_us + session.random.exponential(options_.mean_think_us), order_++, tag});
  }

 private:
  void schedule_start() {
    if (started_ == options_.sessions)
      start_us_ = kNever;
    else
      start_us_ += starts_.exponential(1e6 / options_.sessions_per_s);
  }

  int64_t start_session() {
    if (free_.empty()) {
      free_.push_back(static_cast<int64_t>(slots_.size()));
      slots_.push_back({core::Random(0), 0, 0, 0, {}});
    }
    const int64_t slot = free_.back();
    free_.pop_back();
    core::Random random(options_.seed, kFirstSession + static_cast<uint64_t>(started_++));
    const uint64_t text = random.next() | 1;
    const int64_t turns = draw_turns(random);
    const RequestLengths first = options_.lengths.sample(random);
    slots_[static_cast<size_t>(slot)] = {random, text, turns, options_.system_tokens, first};
    ++unfinished_;
    schedule_start();
    return slot;
  }

  // P(turns > k) = (1 - 1/mean)^k, k = 0, 1, ...
  int64_t draw_turns(core::Random& random) const {
    if (options_.mean_turns == 1) return 1;
    return 1 + static_cast<int64_t>(random.exponential(1) / -std::log1p(-1 / options_.mean_turns));
  }

  Arrival speak(int64_t slot, double at_us) {
    Session& session = slots_[static_cast<size_t>(slot)];
    const int64_t prompt = session.spoken_tokens + session.next.prompt_tokens, output = session.next.output_tokens;
    session.spoken_tokens = prompt + output;
    hashes_.clear();
    if (options_.hash_tokens > 0)
      hash_blocks(session.text, options_.system_tokens / options_.hash_tokens, prompt + output, options_.hash_tokens,
                  hashes_);
    prepare_turn(session);
    return {at_us, prompt, output, hashes_, slot};
  }

  void prepare_turn(Session& session) {
    session.next = options_.lengths.sample(session.random);
    const int64_t grown = session.spoken_tokens + session.next.prompt_tokens + session.next.output_tokens;
    session.turns = grown > options_.most_tokens ? 0 : session.turns - 1;
    if (session.turns == 0) --unfinished_;
  }

  SessionOptions options_;
  core::Random starts_;
  std::vector<Session> slots_;
  std::vector<int64_t> free_;  // slots of sessions that are over
  std::priority_queue<Turn, std::vector<Turn>, std::greater<>> turns_;
  std::vector<uint64_t> hashes_;
  double start_us_ = 0;                               // of the next session
  int64_t started_ = 0, unfinished_ = 0, order_ = 0;  // unfinished: with turns to come
};

}  // namespace

std::unique_ptr<Load> make_sessions(const SessionOptions& options) {
  check(options);
  return std::make_unique<SessionLoad>(options);
}

}  // namespace drydock::simulator
