#pragma once
// A simulation that is watched while it runs, and what several of them tell together.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "simulator/counted_load.h"
#include "simulator/part_file.h"
#include "simulator/simulation.h"
#include "simulator/timeline.h"
#include "simulator/trace_events.h"

namespace drydock::simulator {

// Where what happens goes while it happens; null: nowhere.
struct Sinks {
  PartFile* requests = nullptr;  // CSV, a row a request in the order of their ends
  TraceEvents* events = nullptr;
  std::function<void(int64_t requests)> progress;  // every thousand requests
};
extern const char kRequestsHeader[];  // of the CSV

// Ends the run when the load is over, whatever else is still to happen in the cluster.
class RunObserver : public Recorder {
 public:
  RunObserver(const Options& options, const CountedLoad& load, Sinks sinks)
      : Recorder(options), load_(load), sinks_(std::move(sinks)), client_(options.client), skip_(options.skip) {}

  void done(const RequestRecord& record) override;
  void ran(int pool, int worker, const Run& run, int64_t prompt_tokens) override;
  bool enough() override { return Recorder::enough() || load_.over(); }
  double all_output_tokens() const { return all_output_tokens_; }  // those of requests that do not count too

 private:
  void write_row(const RequestRecord& record);

  const CountedLoad& load_;
  Sinks sinks_;
  ClientView client_;
  int64_t skip_, told_ = 0;
  double all_output_tokens_ = 0;
};

// One simulation.
struct Outcome {
  Simulated result;
  std::unique_ptr<RunObserver> requests;
  Timeline timeline;
  double end_us = 0;
  int64_t arrivals = 0;
  int64_t bad_lines = 0;  // of a trace, passed over
};

struct Watch {
  Recorder::Options recording;
  double sample_us = 1e5;  // of the timeline
  Sinks sinks;
  // Called once the cluster is there; the load and the observer live as long as the run.
  std::function<void(Cluster&, const CountedLoad&, const Recorder&)> prepare;
};
Outcome run_watched(const Deployment& deployment, const models::Workload& workload, Scenario scenario,
                    std::unique_ptr<Load> load, const Watch& watch);

// What the figures per GPU, energy and cost need to know of a deployment.
struct PoolFacts {
  std::string name;
  int gpus_per_worker = 1;
  double power_w = 0;  // of a GPU, board power
  std::optional<double> price_per_gpu_hour;
};

struct PoolSummary {
  std::string name;
  double workers = 0;      // there on average, starting and draining ones included
  double utilization = 0;  // share of that time in steps
  double batch = 0;        // sequences decoding in a busy worker
  double kv_mean = 0, kv_peak = 0;
};

// Replications together: distributions over the requests of all, rates as means, counts as sums.
struct Summary {
  int replications = 1;
  Distribution ttft_ms, tpot_ms, itl_ms, latency_ms, queue_ms;
  // What so large a share of the requests (the targets' quantile) stays within, or the means.
  double ttft_judged_ms = 0, tpot_judged_ms = 0, latency_judged_ms = 0;
  int64_t requests = 0, arrivals = 0, rejected = 0, lost = 0, migrations = 0, replayed_tokens = 0, unfinished = 0;
  int64_t preemptions = 0, good = 0, steps = 0, bad_lines = 0;
  double prompt_tokens = 0, output_tokens = 0;
  double duration_s = 0;  // from the first arrival to the last answer, of one replication
  double requests_per_s = 0, output_tokens_per_s = 0, output_tokens_per_s_per_gpu = 0;
  double goodput_per_s = 0, good_share = 0, hit_rate = 0;
  double gpus = 0, gpu_hours = 0;  // held on average; and over all replications
  std::vector<PoolSummary> pools;
  double kwh_per_million_tokens = 0;  // at most: board power while in steps
  std::optional<double> cost_per_million_tokens;
  bool saturated = false;
  bool precise = true;  // every replication got as far as Recorder::Options::precision asks
};
Summary summarize(const std::vector<const Outcome*>& outcomes, const std::vector<PoolFacts>& pools,
                  const Targets& targets);
core::Json summary_json(const Summary& summary);
core::Json distribution_json(const Distribution& distribution);

}  // namespace drydock::simulator
