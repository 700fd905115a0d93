#pragma once
// How long prompts and outputs are.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "core/random.h"

namespace drydock::simulator {

inline constexpr int64_t kMostTokens = 10'000'000;  // of one prompt or output; more is taken for a mistake

struct RequestLengths {
  int64_t prompt_tokens = 1, output_tokens = 1;
  bool operator==(const RequestLengths&) const = default;
};

// Of prompt and output tokens, each from 1 to kMostTokens. Immutable, cheap to copy.
class LengthDistribution {
 public:
  struct Range {
    int64_t low, high;  // both included
  };
  struct Moments {
    double mean, cv;  // cv: standard deviation / mean, from 0 to 10
  };

  LengthDistribution() : LengthDistribution(fixed(1, 1)) {}

  // All throw core::Error on lengths out of 1 to kMostTokens.
  static LengthDistribution fixed(int64_t prompt_tokens, int64_t output_tokens);
  static LengthDistribution uniform(Range prompt, Range output);
  // Truncated: what falls outside of 1 to `most` is drawn again. The moments are those before that.
  static LengthDistribution lognormal(Moments prompt, Moments output, int64_t most = 1'000'000);
  // Pairs drawn with replacement, so that what belongs together stays together.
  static LengthDistribution empirical(std::vector<RequestLengths> pairs);
  // CSV with columns prompt_tokens, output_tokens (and any others).
  static LengthDistribution read(const std::filesystem::path& csv);

  // `fixed:2000,500`, `uniform:1600-2000,400-500`, `lognormal:2000/0.8,500/1.2` (mean/cv) with an optional third
  // `,8192` (the longest) or `empirical:file.csv`. Throws core::Error naming `origin`, a flag or a file.
  static LengthDistribution parse(std::string_view spec, std::string_view origin);

  RequestLengths sample(core::Random& random) const;
  // Of what sample() gives: after truncation, to within the rounding to whole tokens.
  double mean_prompt() const { return mean_prompt_; }
  double mean_output() const { return mean_output_; }

 private:
  // One length: uniform over low..high, or lognormal truncated to it when cv > 0.
  struct Side {
    int64_t low = 1, high = 1;
    double mean = 1, cv = 0;
    int64_t sample(core::Random& random) const;
    double true_mean() const;
  };

  LengthDistribution(Side prompt, Side output);
  static Side uniform_side(Range range, std::string_view what);
  static Side lognormal_side(Moments moments, int64_t most, std::string_view what);

  Side prompt_, output_;
  std::shared_ptr<const std::vector<RequestLengths>> pairs_;  // empirical
  double mean_prompt_ = 1, mean_output_ = 1;
};

}  // namespace drydock::simulator
