#include <cmath>
#include <string>
#include <vector>

#include "simulator/arrivals.h"
#include "simulator/option_check.h"

namespace drydock::simulator {
namespace {

enum OpenStream : uint64_t { kOpenGaps, kOpenLengths, kOpenHashes };

void check(const OpenOptions& options) {
  const RateProfile& rate = options.rate;
  const bool ramp = rate.kind == RateProfile::Kind::ramp;
  check_range("request rate per second", rate.per_s, ramp ? 0 : 1e-9, 1e9);
  if (ramp) {
    check_range("request rate per second after the ramp", rate.end_per_s, 0, 1e9);
    check_range("seconds of the ramp", rate.over_s, 1e-9, 1e12);
  }
  if (rate.kind == RateProfile::Kind::diurnal) {
    check_range("amplitude of the rate", rate.amplitude, 0, 1);
    check_range("period of the rate in seconds", rate.period_s, 1e-3, 1e12);
  }
  if (!std::isinf(options.burstiness)) check_range("burstiness", options.burstiness, 1e-3, 1e9);
  if (!options.requests && !options.duration_us)
    throw core::Error("open load: without an end; want a number of requests or a duration");
  if (options.requests) check_range("requests", *options.requests, 0, int64_t{1} << 53);
  if (options.duration_us) check_range("duration in us", *options.duration_us, 0, 1e18);
  check_sharing(options.prefix);
}

class OpenLoad : public Load {
 public:
  explicit OpenLoad(const OpenOptions& options)
      : options_(options),
        gaps_(options.seed, kOpenGaps),
        lengths_(options.seed, kOpenLengths),
        hasher_(options.prefix, options.seed, kOpenHashes) {
    advance();
  }

  double next_us() const override { return next_us_; }
  int64_t hash_tokens() const override { return hasher_.hash_tokens(); }
  bool done() const override { return std::isinf(next_us_); }

  Arrival take() override {
    const RequestLengths lengths = options_.lengths.sample(lengths_);
    hasher_.hash(lengths.prompt_tokens, hashes_);
    Arrival arrival{next_us_, lengths.prompt_tokens, lengths.output_tokens, hashes_, taken_++};
    advance();
    return arrival;
  }

 private:
  // A process of rate 1, stretched so that the rate is the profile's.
  void advance() {
    count_ += std::isinf(options_.burstiness) ? 1 : gaps_.gamma(options_.burstiness, 1);
    next_us_ = 1e6 * options_.rate.time_of(count_);
    const bool late = options_.duration_us && next_us_ > *options_.duration_us;
    if (late || (options_.requests && taken_ >= *options_.requests)) next_us_ = kNever;
  }

  OpenOptions options_;
  core::Random gaps_, lengths_;
  PrefixHasher hasher_;
  std::vector<uint64_t> hashes_;
  int64_t taken_ = 0;
  double count_ = 0, next_us_ = 0;
};

}  // namespace

std::unique_ptr<Load> make_open_load(const OpenOptions& options) {
  check(options);
  return std::make_unique<OpenLoad>(options);
}

}  // namespace drydock::simulator
