#pragma once
// One answer to be made: what a client asked in tokens, and how it is told.
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace drydock::runtime {

using Clock = std::chrono::steady_clock;
using Token = int32_t;

// How the next token is drawn from the logits: kernels/sampling.h. The draw of token i depends on the seed and i alone.
struct Sampling {
  float temperature = 1;  // 0: the most likely token
  float top_p = 1;        // (0, 1]
  int32_t top_k = 0;      // 0: all
  uint64_t seed = 0;
  int32_t logprobs = -1;  // most likely alternatives to report with each token, 0 to 20; -1: no log-probabilities
};

struct Generation {
  std::string id;             // of the answer, in logs: "cmpl-..."
  std::string trace_parent;   // W3C trace context header, passed on; may be empty
  std::vector<Token> prompt;  // not empty
  int64_t most_tokens = 16;   // > 0
  Sampling sampling;
  std::vector<Token> stop_tokens;             // ends the answer, itself left out; empty under ignore_eos
  std::optional<Clock::time_point> deadline;  // then it is cancelled
};

struct TokenLogprob {
  Token token = 0;
  float logprob = 0;
};

struct GeneratedToken {
  Token token = 0;
  float logprob = 0;              // natural log, of the untempered softmax; 0 unless asked for
  std::vector<TokenLogprob> top;  // the most likely ones, best first, as many as asked for
};

enum class Finish : uint8_t { stop, length, cancelled, deadline, failed };

// Told by the service, in order, from threads of its own; must return at once.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual void on_tokens(std::span<const GeneratedToken> tokens) = 0;
  // The last call. `reason`: one line where it failed.
  virtual void on_finish(Finish finish, const std::string& reason) = 0;
};

}  // namespace drydock::runtime
