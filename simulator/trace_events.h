#pragma once
// What a simulation did, in the Chrome trace format that Perfetto and chrome://tracing open: a process a pool, a track
// a worker with its runs as slices, requests as asynchronous events, waiting and running requests as counters. Format:
// "Trace Event Format", Google, 2016; times in us.
#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "simulator/cluster.h"
#include "simulator/timeline.h"

namespace drydock::simulator {

// Keeps the first `most` slices and request events; what comes later is counted.
class TraceEvents {
 public:
  static constexpr int64_t kMost = 100'000;
  explicit TraceEvents(std::vector<std::string> pools, int64_t most = kMost) : pools_(std::move(pools)), most_(most) {}

  void ran(int pool, int worker, const Run& run, int64_t prompt_tokens);
  void done(const RequestRecord& record);
  // Every sample becomes counters, beyond the `most`.
  void counters(const Timeline& timeline);

  int64_t left_out() const { return left_out_; }
  std::string json() const;

 private:
  bool full();
  void add(const core::Json& event);
  void phase(const char* name, double from_us, double to_us, int64_t id, const core::Json& arguments);

  std::vector<std::string> pools_;
  std::vector<int> workers_;  // per pool: the most that were seen
  int64_t most_, kept_ = 0, left_out_ = 0, requests_ = 0;
  std::string events_;
};

}  // namespace drydock::simulator
