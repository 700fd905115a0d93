#pragma once
// What /metrics tells, in Prometheus' text format. docs/http.md lists the names.
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/completion_request.h"
#include "runtime/service.h"

namespace drydock::runtime {

// A histogram that one thread writes and others read: a few ns an observation, no locks, no read-modify-write.
class Histogram {
 public:
  // `bounds`: upper ends of the buckets, ascending; must outlive it. At most kMostBuckets.
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds) {}
  void observe(double value, uint64_t times = 1);

  static constexpr size_t kMostBuckets = 24;
  std::span<const double> bounds() const { return bounds_; }
  uint64_t count(size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  std::span<const double> bounds_;
  std::array<std::atomic<uint64_t>, kMostBuckets + 1> counts_{};  // the last one: above all bounds
  std::atomic<double> sum_{0};
};

// What one thread that serves connections counts. It alone writes.
class alignas(64) MetricsShard {
 public:
  MetricsShard();
  Histogram time_to_first_token_s, inter_token_latency_s, request_duration_s, prompt_tokens, generation_tokens;
  // `status`: of HTTP; 499 when the client went away. Those without a name of their own count as 0.
  void count_request(CompletionKind kind, int status);

  static constexpr std::array kStatuses = {200, 400, 401, 404, 408, 413, 415, 429, 499, 500, 503, 504, 0};
  uint64_t requests(CompletionKind kind, size_t status) const {
    return requests_[static_cast<size_t>(kind)][status].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::array<std::atomic<uint64_t>, kStatuses.size()>, 2> requests_{};
};

// The state of the server itself.
struct HttpGauges {
  int64_t connections = 0, streams = 0;
  std::string version;
};

// Shards are added up. `model`: the label of every sample.
std::string metrics_text(std::span<const std::unique_ptr<MetricsShard>> shards, const ServiceStats& stats,
                         const HttpGauges& gauges, const std::string& model);

}  // namespace drydock::runtime
