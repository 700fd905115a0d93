#include <algorithm>
#include <functional>
#include <queue>
#include <vector>

#include "simulator/arrivals.h"
#include "simulator/option_check.h"

namespace drydock::simulator {
namespace {

enum ClosedLoopStream : uint64_t { kGaps, kLengths, kHashes };

constexpr int64_t kMostRequests = int64_t{1} << 40;

// Two phases, warm-up and measured, each of which issues up to its number of requests.
class ClosedLoopLoad : public Load {
 public:
  ClosedLoopLoad(const ClosedLoopOptions& options, int64_t warmup, int64_t prompts)
      : options_(options),
        warmup_(warmup),
        total_(warmup + prompts),
        gaps_(options.seed, kGaps),
        lengths_(options.seed, kLengths),
        hasher_(options.prefix, options.seed, kHashes) {
    start_phase(0);
  }

  double next_us() const override {
    if (waiting_.empty() || (options_.connections > 0 && taken_ - finished_ >= options_.connections)) return kNever;
    return std::max(waiting_.top(), freed_us_);
  }
  int64_t hash_tokens() const override { return hasher_.hash_tokens(); }
  bool done() const override { return taken_ == total_; }

  Arrival take() override {
    const double at_us = next_us(), wanted_us = waiting_.top();
    waiting_.pop();
    const RequestLengths lengths = options_.lengths.sample(lengths_);
    hasher_.hash(lengths.prompt_tokens, hashes_);
    const int64_t tag = taken_++;
    return {at_us, lengths.prompt_tokens, lengths.output_tokens, hashes_, tag, 0, tag < warmup_, at_us - wanted_us};
  }

  void finished(int64_t, double at_us) override {
    if (options_.connections > 0 && taken_ - finished_ >= options_.connections) freed_us_ = at_us;
    ++finished_;
    if (finished_ == warmup_)
      start_phase(at_us);
    else if (issued_ < phase_end())
      issue(at_us + gap_us());
  }

 private:
  int64_t phase_end() const { return finished_ < warmup_ ? warmup_ : total_; }

  void start_phase(double at_us) {
    const int64_t first = std::min(options_.concurrency, phase_end() - issued_);
    for (int64_t i = 0; i < first; ++i)
      issue(at_us + options_.ramp_us * static_cast<double>(i) / static_cast<double>(first));
  }

  void issue(double at_us) {
    ++issued_;
    waiting_.push(at_us);
  }

  double gap_us() { return options_.uniform_gap ? 2 * options_.gap_us * gaps_.uniform() : options_.gap_us; }

  ClosedLoopOptions options_;
  int64_t warmup_, total_;
  core::Random gaps_, lengths_;
  PrefixHasher hasher_;
  std::vector<uint64_t> hashes_;
  std::priority_queue<double, std::vector<double>, std::greater<>> waiting_;
  double freed_us_ = 0;                            // when the last connection that others waited for was free
  int64_t issued_ = 0, taken_ = 0, finished_ = 0;  // of both phases
};

}  // namespace

std::unique_ptr<Load> make_closed_loop(const ClosedLoopOptions& options) {
  check_range("concurrency", options.concurrency, 1, 10'000'000);
  const int64_t prompts = options.prompts.value_or(10 * options.concurrency);
  const int64_t warmup = options.warmup.value_or(2 * options.concurrency);
  check_range("prompts", prompts, 1, kMostRequests);
  check_range("warm-up requests", warmup, 0, kMostRequests);
  check_range("connections", options.connections, 0, 1'000'000'000);
  check_range("gap in us", options.gap_us, 0, 1e15);
  check_range("ramp in us", options.ramp_us, 0, 1e15);
  check_sharing(options.prefix);
  return std::make_unique<ClosedLoopLoad>(options, warmup, prompts);
}

}  // namespace drydock::simulator
