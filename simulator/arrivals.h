#pragma once
// What users ask of a deployment, request by request: closed loop, open arrivals, conversations. Traces: trace.h.
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>

#include "simulator/block_hashes.h"
#include "simulator/lengths.h"

namespace drydock::simulator {

struct Arrival {
  double at_us = 0;
  int64_t prompt_tokens = 0, output_tokens = 0;
  // Of the KV blocks of hash_tokens() tokens from the prompt's start, the last one maybe partial: equal hashes mean
  // equal text up to the block's end. Conversations go on into the output's blocks; a trace may give fewer than the
  // prompt has. Empty: shares nothing. Valid until the load's next non-const call.
  std::span<const uint64_t> hashes;
  int64_t tag = 0;  // the load's own; handed back in finished()
  int priority = 0;
  bool warmup = false;   // not to be counted
  double waited_us = 0;  // before at_us, at the client: for a connection
};

// Requests in order of time, if finished() is told in order of time. The same options give the same requests.
class Load {
 public:
  virtual ~Load() = default;
  // Of the next arrival; infinity: none until a request finishes, or none any more.
  virtual double next_us() const = 0;
  // That arrival; next_us() must be finite.
  virtual Arrival take() = 0;
  // A request is answered (or lost): closed loops and conversations go on. Once for each request.
  virtual void finished(int64_t tag, double at_us) { (void)tag, (void)at_us; }
  virtual int64_t hash_tokens() const { return 0; }
  // Nothing will ever arrive again.
  virtual bool done() const = 0;
};

inline constexpr double kNever = std::numeric_limits<double>::infinity();

// At most `concurrency` requests in flight: the first ones at once, the next one a gap after an answer. Warm-ups come
// first; the measured ones start, as at time 0, when all warm-ups are answered (the InferenceX client).
struct ClosedLoopOptions {
  int64_t concurrency = 1;
  std::optional<int64_t> prompts;  // measured ones; none given: 10 x concurrency
  std::optional<int64_t> warmup;   // none given: 2 x concurrency
  LengthDistribution lengths;
  double gap_us = 0;         // from an answer to the next request
  bool uniform_gap = false;  // uniform in [0, 2] x gap_us rather than gap_us sharp
  int64_t connections = 0;   // that the client has; more requests in flight wait for one in order; 0: no limit
  double ramp_us = 0;        // the first ones of a phase are evenly spread over this; 0: all at once
  PrefixSharing prefix;
  uint64_t seed = 0;
};
std::unique_ptr<Load> make_closed_loop(const ClosedLoopOptions& options);

// Requests per second over time, t in seconds.
struct RateProfile {
  enum class Kind {
    constant,  // per_s
    ramp,      // from per_s to end_per_s over over_s seconds, then stays
    diurnal,   // per_s (1 + amplitude sin(2 pi t / period_s))
  };
  Kind kind = Kind::constant;
  double per_s = 1;
  double end_per_s = 1, over_s = 1;
  double amplitude = 0.5, period_s = 86'400;  // amplitude: share of the mean, 0 to 1

  double rate(double t_s) const;
  // Requests expected from 0 to t_s: the integral of rate().
  double expected(double t_s) const;
  // Inverse of expected(); infinity when that many never come.
  double time_of(double count) const;
};

// Arrivals that do not wait for answers. Gaps are gamma distributed with shape `burstiness` = 1 / cv^2, as in vLLM's
// benchmark client (1: Poisson, below: bursts, infinity: even), in a time in which the rate is 1.
struct OpenOptions {
  RateProfile rate;
  double burstiness = 1;
  std::optional<int64_t> requests;  // at least one limit must be given; the first that is reached ends it
  std::optional<double> duration_us;
  LengthDistribution lengths;
  PrefixSharing prefix;
  uint64_t seed = 0;
};
std::unique_ptr<Load> make_open_load(const OpenOptions& options);

// Conversations: each prompt is all that was said before plus new tokens, each next turn comes a think time after the
// answer. Sessions start as a Poisson process.
struct SessionOptions {
  int64_t sessions = 1;
  double sessions_per_s = 1;
  double mean_turns = 1;              // geometric, at least 1
  double mean_think_us = 0;           // exponential
  LengthDistribution lengths;         // prompt tokens: what a turn adds, before its output
  int64_t system_tokens = 0;          // begin every conversation, the same for all
  int64_t most_tokens = kMostTokens;  // a conversation ends before a turn, but the first, that would make it longer
  int64_t hash_tokens = 512;          // 0: no hashes
  uint64_t seed = 0;
};
std::unique_ptr<Load> make_sessions(const SessionOptions& options);

// All make_...() throw core::Error naming the option, what is wrong with it and what would be right.

}  // namespace drydock::simulator
