#pragma once
// What users felt: distributions over requests, with how sure their means and percentiles are.
#include <cstdint>
#include <optional>
#include <vector>

#include "simulator/cluster.h"

namespace drydock::simulator {

// Counts of positive values in buckets 2 % wide, so that any quantile is within 1 %. Merging adds counts, in any order
// with the same result. Masson et al., "DDSketch", VLDB 2019.
class LogHistogram {
 public:
  void add(double value, double count = 1);
  void merge(const LogHistogram& other);
  double count() const { return count_; }
  double mean() const { return count_ > 0 ? sum_ / count_ : 0; }
  double most() const { return most_; }
  double quantile(double q) const;  // q in [0, 1]; 0 when empty

 private:
  std::vector<double> buckets_;
  double count_ = 0, sum_ = 0, most_ = 0;
};

struct Distribution {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, most = 0;
  double mean_half_width = 0;  // of a 95 % confidence interval by batch means; 0 when there are too few values
  int64_t count = 0;
};

// Linear between order statistics (type 7 of Hyndman and Fan 1996, numpy's default), q in [0, 1]. Reorders `values`; 0
// when empty.
double quantile(std::vector<double>& values, double q);

// Means and quantiles of values in their order of time. Batch means: Law, "Simulation Modeling and Analysis", 9.5.3.
Distribution distribution(const std::vector<double>& values);
// Half-width of the 95 % confidence interval of a quantile, by batches as well; infinity with fewer than 20 a batch.
double quantile_half_width(const std::vector<double>& values, double q);
double mean_half_width(const std::vector<double>& values);

// Limits on a quantile of the requests, or on the mean.
struct Targets {
  std::optional<double> ttft_ms, tpot_ms, latency_ms;
  std::optional<double> quantile;  // nullopt: mean

  bool any() const { return ttft_ms || tpot_ms || latency_ms; }
};

// The way from the engine to the client.
struct ClientView {
  double outside_ms = 0;        // HTTP, tokenizer, detokenizer: part of every TTFT
  int64_t stream_interval = 1;  // tokens that the server gathers before it sends them on
};

// Collects the requests of a run. Times in ms, lost, rejected and warm-up requests left out of the distributions.
class Recorder : public Observer {
 public:
  struct Options {
    ClientView client;
    Targets targets;
    // With targets at a quantile and the number of requests known: stops once the targets can't be met any more.
    int64_t expected_requests = 0;
    // Stops once mean TTFT and TPOT (and their quantile of the targets) are known to this share; 0: never.
    double precision = 0;
    bool keep_records = false;
    int64_t skip = 0;  // answers that don't count, while the deployment fills up
  };
  explicit Recorder(const Options& options) : options_(options) {}

  void done(const RequestRecord& record) override;
  void token_gap(double us, double tokens) override { itl_.add(us * 1e-3, tokens); }
  bool enough() override { return enough_; }

  const std::vector<double>& ttft_ms() const { return ttft_; }
  const std::vector<double>& tpot_ms() const { return tpot_; }
  const std::vector<double>& latency_ms() const { return latency_; }
  const std::vector<double>& queue_ms() const { return queue_; }
  const LogHistogram& itl_ms() const { return itl_; }
  const std::vector<RequestRecord>& records() const { return records_; }
  int64_t good() const { return good_; }  // requests that met all targets
  int64_t requests() const { return static_cast<int64_t>(ttft_.size()); }
  double output_tokens() const { return output_tokens_; }
  double prompt_tokens() const { return prompt_tokens_; }
  double first_arrival_us() const { return first_us_; }
  double last_answer_us() const { return last_us_; }
  // Counts requests in flight that are late already. True: the targets are out of reach, see hopeless().
  void begin_look() { pending_ = {}; }
  void look(const RequestRecord& record, double now_us);
  bool end_look();
  // Mean TTFT and TPOT, and their quantile of the targets, are known to Options::precision.
  bool precise() const;
  // A target at a quantile is certainly missed, whatever the requests still to come would feel.
  bool hopeless() const { return hopeless_; }
  // Hopeless, and by its first tokens.
  bool first_tokens_late() const { return first_tokens_late_; }
  // As the client sees them.
  double ttft_ms_of(const RequestRecord& record) const;
  double tpot_ms_of(const RequestRecord& record) const;

 private:
  static constexpr int64_t kFewestToJudge = 1000;
  int64_t late_allowed() const;
  void judge(double ttft, double tpot, double latency);

  Options options_;
  std::vector<double> ttft_, tpot_, latency_, queue_;
  std::vector<RequestRecord> records_;
  LogHistogram itl_;
  int64_t skipped_ = 0;
  struct Late {
    int64_t ttft = 0, tpot = 0, latency = 0;
  } pending_;
  int64_t good_ = 0, late_ttft_ = 0, late_tpot_ = 0, late_latency_ = 0, next_check_ = kFewestToJudge;
  double output_tokens_ = 0, prompt_tokens_ = 0, first_us_ = kNever, last_us_ = 0;
  bool enough_ = false, hopeless_ = false, first_tokens_late_ = false;
};

}  // namespace drydock::simulator
