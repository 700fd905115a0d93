#include "simulator/closed_loop.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace drydock::simulator {
namespace {

struct Request {
  double finish_clock;  // decode clock at its last token [tokens]
  double arrival_us, first_token_us;
  double tokens;  // decode steps it takes: output - 1

  bool operator<(const Request& other) const { return finish_clock > other.finish_clock; }  // heap: earliest on top
};

// Uniform in [0, 1) over any stretch and without a seed: multiples of an irrational number, Weyl 1916.
class Spread {
 public:
  explicit Spread(double irrational) : step_(irrational) {}
  double next() {
    phase_ += step_;
    return phase_ -= std::floor(phase_);
  }

 private:
  double step_, phase_ = 0;
};

// Requests come in bundles of `weight`, so that the cost does not grow with the concurrency.
class Follower {
 public:
  Follower(StepTable& table, Admission admission, const ClosedLoop& loop)
      : table_(table), admission_(admission), loop_(loop) {
    const double flights = std::max(1.0, std::min(loop.concurrency, static_cast<double>(loop.bundles)));
    flights_ = static_cast<int>(flights);
    weight_ = loop.concurrency / flights_;
    slots_ = std::max(1, static_cast<int>(std::lround(std::min(loop.slots, loop.concurrency) / weight_)));
    to_issue_ = std::max(flights_, static_cast<int>(std::lround(loop.prompts / weight_)));
    waiting_.reserve(static_cast<size_t>(to_issue_));
    running_.reserve(static_cast<size_t>(flights_));
    decode_us_.resize(static_cast<size_t>(flights_) + 1);
  }

  LoopTimes run() {
    for (int i = 0; i < flights_; ++i) issue(0);
    while (finished_ < to_issue_) {
      if (can_admit())
        admit();
      else
        advance();
      retire();
    }
    const double n = finished_;
    return {ttft_us_ / n, tpot_us_ / n, now_us_ * 1e-6, busy_us_ / now_us_, latency_us_ / n};
  }

 private:
  double batch() const { return weight_ * static_cast<double>(running_.size()); }

  // Arrivals are kept in order; a longer gap lets a later request overtake.
  void issue(double at_us) {
    if (static_cast<int>(waiting_.size()) >= to_issue_) return;
    const double arrival_us = at_us + 2 * loop_.gap_us * gap_.next();
    const auto place = std::upper_bound(waiting_.begin() + static_cast<long>(next_), waiting_.end(), arrival_us);
    waiting_.insert(place, arrival_us);
  }

  bool can_admit() const {
    return next_ < waiting_.size() && static_cast<int>(running_.size()) < slots_ && waiting_[next_] <= now_us_;
  }

  // A decode step of what runs now; asked for again and again for the same few numbers of bundles.
  double decode_us() {
    double& known = decode_us_[running_.size()];
    if (known == 0) known = table_.decode(batch()).us;
    return known;
  }

  // One prefill step (or the steps of one bundle, where it is larger than a step).
  void admit() {
    const int fit = std::max(1, static_cast<int>(table_.prompts_per_step() / weight_));
    int count = 0;
    while (count < fit && next_ + count < waiting_.size() && static_cast<int>(running_.size()) + count < slots_ &&
           waiting_[next_ + count] <= now_us_)
      ++count;
    const double prompts = count * weight_;
    const double steps = std::max(1.0, std::ceil(prompts / table_.prompts_per_step() - 1e-9));
    const bool beside = admission_ != Admission::prefill_first;
    const double step_us = table_.prefill(prompts / steps, beside ? batch() : 0).us;
    const double start_us = now_us_;
    pass(step_us * steps,
         beside ? steps * static_cast<double>(table_.steps_per_prompt()) * table_.tokens_per_step() : 0);
    const double first_us = start_us + step_us * (steps + 1) / 2;
    for (int i = 0; i < count; ++i) start(waiting_[next_++], first_us);
  }

  void start(double arrival_us, double first_token_us) {
    ttft_us_ += first_token_us - arrival_us;
    const double tokens = std::max(0.0, std::round(next_output()) - 1);
    running_.push_back({clock_ + tokens, arrival_us, first_token_us, tokens});
    std::push_heap(running_.begin(), running_.end());
  }

  // Decode steps until someone finishes or the next arrival can be admitted.
  void advance() {
    if (running_.empty()) {
      now_us_ = std::max(now_us_, waiting_[next_]);
      return;
    }
    const double step_us = decode_us();
    double steps = std::max(1.0, std::ceil(running_.front().finish_clock - clock_));
    if (next_ < waiting_.size() && static_cast<int>(running_.size()) < slots_)
      steps = std::min(steps, std::max(1.0, std::ceil((waiting_[next_] - now_us_) / step_us)));
    pass(steps * step_us, steps);
  }

  void pass(double us, double tokens) {
    busy_us_ += us * batch();
    now_us_ += us;
    clock_ += tokens;
  }

  void retire() {
    while (!running_.empty() && running_.front().finish_clock <= clock_ + 1e-9) {
      std::pop_heap(running_.begin(), running_.end());
      const Request done = running_.back();
      running_.pop_back();
      if (done.tokens > 0) tpot_us_ += (now_us_ - done.first_token_us) / done.tokens;
      latency_us_ += now_us_ - done.arrival_us;
      ++finished_;
      issue(now_us_ + loop_.gap_us);
    }
  }

  double next_output() {
    return loop_.shortest_output + (loop_.longest_output - loop_.shortest_output) * length_.next();
  }

  StepTable& table_;
  Admission admission_;
  ClosedLoop loop_;
  int flights_ = 1, slots_ = 1, to_issue_ = 1, finished_ = 0;
  double weight_ = 1;            // requests a bundle stands for
  std::vector<double> waiting_;  // arrivals, in order; those before next_ have been admitted
  size_t next_ = 0;
  Spread length_{0.6180339887498949}, gap_{0.4142135623730951};  // golden ratio, square root of 2
  std::vector<Request> running_;                                 // heap
  std::vector<double> decode_us_;                                // by number of bundles running; 0: not asked yet
  double now_us_ = 0, clock_ = 0, busy_us_ = 0;
  double ttft_us_ = 0, tpot_us_ = 0, latency_us_ = 0;
};

}  // namespace

LoopTimes follow(StepTable& table, Admission admission, const ClosedLoop& loop) {
  return Follower(table, admission, loop).run();
}

}  // namespace drydock::simulator
