#pragma once
// The state of a cluster's pools over time, in a bounded number of samples.
#include <string>
#include <vector>

#include "simulator/cluster.h"

namespace drydock::simulator {

class Timeline {
 public:
  static constexpr size_t kMostSamples = 2000;
  struct Sample {
    double at_us = 0;
    std::vector<PoolState> pools;
  };

  // To be told every `interval_us`. Past kMostSamples every other sample is dropped, and from then on half of what
  // comes is kept.
  void add(double at_us, std::vector<PoolState> pools);
  // The run ended then: the last state counts on until there.
  void close(double end_us);

  const std::vector<Sample>& samples() const { return samples_; }
  // Over all that was told, kept or not.
  double kv_mean(size_t pool) const;
  double kv_peak(size_t pool) const { return pool < sums_.size() ? sums_[pool].kv_peak : 0; }
  // Time that workers were there, starting and draining ones included.
  double worker_us(size_t pool) const { return pool < sums_.size() ? sums_[pool].worker_us : 0; }

 private:
  struct Sums {
    double kv = 0, kv_peak = 0, worker_us = 0;
  };

  std::vector<Sample> samples_;
  std::vector<Sums> sums_;
  std::vector<PoolState> last_;
  double last_us_ = 0;
  int64_t told_ = 0, stride_ = 1;
};

// One row a sample: time_s, then for each pool its alive and starting workers, waiting and running requests, and the
// share of KV blocks in use.
std::string timeline_csv(const Timeline& timeline, const std::vector<std::string>& pools);

}  // namespace drydock::simulator
