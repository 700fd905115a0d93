#include <doctest/doctest.h>

#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "models/catalogue.h"
#include "simulator/report.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

std::vector<PoolState> pool_of(int alive, double kv_share) {
  PoolState s;
  s.alive = alive;
  s.kv_share = kv_share;
  return {s};
}

// One engine of Llama 70B on two H200, and requests for it.
struct ReportBed {
  models::Architecture architecture = models::find_model("meta-llama/Llama-3.1-70B");
  models::System system = models::find_system("h200_sxm");
  perfdb::KernelTimes times{system.hardware};
  BackendModel backend;
  Engine engine{architecture, models::choose_precision(architecture, "fp8"), {2, 1, 1, 1, 1}, system, times, backend,
                8192};
  models::Workload workload;
  Deployment deployment;

  explicit ReportBed(int replicas = 2) {
    workload.isl = 1000, workload.osl = 100;
    workload.rate = 4;
    deployment.parts.push_back({&engine, models::Role::worker, replicas, 64});
  }
  std::unique_ptr<Load> load(int64_t requests, uint64_t seed = 1) const {
    OpenOptions open;
    open.rate.per_s = *workload.rate;
    open.requests = requests;
    open.lengths = lengths_of(workload);
    open.seed = seed;
    return make_open_load(open);
  }
  Outcome run(int64_t requests, const Watch& watch = {}, const Scenario& scenario = {}, uint64_t seed = 1) const {
    return run_watched(deployment, workload, scenario, load(requests, seed), watch);
  }
};

const std::vector<PoolFacts> kFacts = {{"worker", 2, 700, 2.5}};

}  // namespace

TEST_CASE("a timeline stays within its samples, evenly spread, and sums over all it was told") {
  Timeline timeline;
  for (int i = 0; i <= 10'000; ++i) timeline.add(i * 1e6, pool_of(i < 5000 ? 1 : 3, i % 2 ? 0.2 : 0.4));
  timeline.close(10'000e6);
  CHECK(timeline.samples().size() <= Timeline::kMostSamples);
  CHECK(timeline.samples().size() > Timeline::kMostSamples / 2);
  CHECK(timeline.samples()[0].at_us == 0);
  const double step = timeline.samples()[1].at_us;
  for (size_t i = 0; i < timeline.samples().size(); ++i)
    CHECK(timeline.samples()[i].at_us == doctest::Approx(step * static_cast<double>(i)));
  CHECK(timeline.kv_mean(0) == doctest::Approx(0.3).epsilon(1e-3));  // 5001 x 0.4 and 5000 x 0.2
  CHECK(timeline.kv_peak(0) == 0.4);
  CHECK(timeline.worker_us(0) == doctest::Approx((5000 + 3 * 5000) * 1e6));
  const std::string csv = timeline_csv(timeline, {"worker"});
  CHECK(csv.starts_with(
      "time_s,worker_alive,worker_starting,worker_waiting,worker_running,worker_kv_share\n0.000000,1,"));
  CHECK(tests::lines(csv) == static_cast<int>(timeline.samples().size()) + 1);
}

TEST_CASE("a file appears when it is whole, or not at all") {
  const tests::Scratch scratch;
  {
    PartFile dropped(scratch / "a.csv");
    dropped.append("half");
  }
  CHECK(std::filesystem::is_empty(scratch.path()));
  PartFile kept(scratch / "b.csv");
  kept.append("one\n");
  CHECK(!std::filesystem::exists(scratch / "b.csv"));
  kept.append("two\n");
  kept.commit();
  CHECK(core::read_file(scratch / "b.csv") == "one\ntwo\n");
  CHECK_THROWS_AS(PartFile(scratch / "no/such/folder"), core::Error);
}

TEST_CASE("a trace is JSON, bounded, and tells how much it left out") {
  TraceEvents events({"worker"}, 10);
  Run run;
  run.line = {1000, 10, 5};
  run.steps = 5;
  for (int i = 0; i < 8; ++i) {
    run.start_us = i * 6000;
    events.ran(0, i % 2, run, 0);
  }
  RequestRecord record;
  record.arrival_us = 5, record.started_us = 10, record.first_us = 20, record.last_us = 90;
  for (int i = 0; i < 4; ++i) events.done(record);
  const core::Json json = core::parse_json(events.json(), "trace");
  // 8 slices; the first request has room, with 6 events; the three others do not.
  CHECK(json["otherData"]["left_out"] == 3);
  int slices = 0, begins = 0, ends = 0;
  for (const core::Json& event : json["traceEvents"]) {
    slices += event["ph"] == "X", begins += event["ph"] == "b", ends += event["ph"] == "e";
    if (event["ph"] == "X") CHECK(event["dur"] == 5100);  // 5 x 1000 + 10 x (0 + 1 + 2 + 3 + 4)
  }
  CHECK(slices == 8);
  CHECK(begins == 3);
  CHECK(ends == 3);
}

TEST_CASE("a load that is counted ends when its time is over") {
  ReportBed bed;
  CountedLoad load(bed.load(1000), 10e6);
  while (load.next_us() != kNever) load.take();
  CHECK(load.done());
  CHECK(load.taken() > 20);  // 40 expected, Poisson
  CHECK(load.taken() < 70);
  CHECK(!load.over());
  while (load.in_flight() > 0) load.finished(0, 11e6);
  CHECK(load.over());
}

TEST_CASE("figures of a run agree with one another") {
  const ReportBed bed;
  Watch watch;
  watch.recording.targets.ttft_ms = 1e6;
  const Outcome one = bed.run(600, watch);
  const Summary s = summarize({&one}, kFacts, watch.recording.targets);
  CHECK(s.requests == 600);
  CHECK(s.arrivals == 600);
  CHECK(s.good_share == 1);
  CHECK(s.requests_per_s == doctest::Approx(4).epsilon(0.15));  // 600 Poisson arrivals: 4 % deviation
  REQUIRE(s.pools.size() == 1);
  CHECK(s.pools[0].workers == doctest::Approx(2));
  CHECK(s.gpus == doctest::Approx(4));
  CHECK(s.gpu_hours == doctest::Approx(4 * one.end_us / 3.6e9));
  CHECK(s.pools[0].utilization > 0.05);
  CHECK(s.pools[0].utilization <= 1);
  CHECK(s.pools[0].kv_peak >= s.pools[0].kv_mean);
  CHECK(*s.cost_per_million_tokens == doctest::Approx(2.5 * s.gpu_hours / s.output_tokens * 1e6));
  CHECK(s.kwh_per_million_tokens ==
        doctest::Approx(s.pools[0].utilization * s.gpu_hours * 0.7 / s.output_tokens * 1e6));
  CHECK(s.ttft_ms.p50 <= s.ttft_ms.p99);
  CHECK(s.latency_ms.mean == doctest::Approx(s.ttft_ms.mean + 99 * s.tpot_ms.mean).epsilon(0.02));
  CHECK(summary_json(s)["ttft_ms"]["p95"] == s.ttft_ms.p95);
}

TEST_CASE("replications are pooled: counts add up, rates are means") {
  const ReportBed bed;
  const Outcome a = bed.run(300, {}, {}, 1), b = bed.run(300, {}, {}, 2);
  const Summary both = summarize({&a, &b}, kFacts, {});
  const Summary first = summarize({&a}, kFacts, {}), second = summarize({&b}, kFacts, {});
  CHECK(both.requests == 600);
  CHECK(both.ttft_ms.mean == doctest::Approx((first.ttft_ms.mean + second.ttft_ms.mean) / 2));
  CHECK(both.requests_per_s == doctest::Approx((first.requests_per_s + second.requests_per_s) / 2));
  CHECK(both.gpu_hours == doctest::Approx(first.gpu_hours + second.gpu_hours));
  CHECK(both.ttft_ms.most == std::max(first.ttft_ms.most, second.ttft_ms.most));
}

TEST_CASE("watching a run changes nothing, and failures after its end neither") {
  const ReportBed bed;
  Watch fine, coarse;
  fine.sample_us = 1e3, coarse.sample_us = 1e9;
  Scenario late;
  late.failures.push_back({Failure::Kind::dies, 0, 0, 1e12, 1e6, 1});
  const Outcome a = bed.run(200, fine), b = bed.run(200, coarse, late);
  CHECK(a.requests->ttft_ms() == b.requests->ttft_ms());
  CHECK(a.requests->latency_ms() == b.requests->latency_ms());
  CHECK(a.end_us == b.end_us);
}

TEST_CASE("requests that nobody will ever run are told, and the run ends") {
  const ReportBed bed(1);
  Scenario gone;
  gone.failures.push_back({Failure::Kind::dies, 0, 0, 1e6, kNever, 1});
  const Outcome out = bed.run(100, {}, gone);
  const Summary s = summarize({&out}, kFacts, {});
  CHECK(s.unfinished > 90);
  CHECK(s.requests + s.lost + s.unfinished == 100);
  CHECK(s.ttft_ms.count == s.requests);
}
