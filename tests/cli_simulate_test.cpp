#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "core/csv.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::tests;

namespace {

using Arguments = std::vector<std::string>;

const char kAgg[] = R"({"schema": "drydock.plan", "version": 1, "model": "Qwen/Qwen3-32B", "precision": "fp8",
  "backend": "vllm", "mode": "agg", "pools": [{"role": "worker", "system": "h200_sxm", "tp": 1, "replicas": 2,
  "max_batch": 64, "max_tokens": 8192}], "workload": {"isl": 1000, "osl": 100, "rate": 4},
  "slo": {"ttft_ms": 1000, "tpot_ms": 30}})";

const char kDisagg[] = R"({"schema": "drydock.plan", "version": 1, "model": "Qwen/Qwen3-32B", "precision": "fp8",
  "backend": "trtllm", "mode": "disagg", "pools": [{"role": "prefill", "system": "h200_sxm", "tp": 1, "max_batch": 4,
  "max_tokens": 8192}, {"role": "decode", "system": "h200_sxm", "tp": 2, "max_batch": 64, "max_tokens": 8192}],
  "workload": {"isl": 1000, "osl": 100, "rate": 4}})";

// Two users of one long text, 20 requests a second apart.
std::string mooncake_trace() {
  std::ostringstream out;
  for (int i = 0; i < 20; ++i)
    out << R"({"timestamp": )" << i * 1000 << R"(, "input_length": 1100, "output_length": 40, "hash_ids": [1, 2, )"
        << 10 + i << "]}\n";
  return out.str();
}

struct SimulateBench {
  Scratch scratch;
  std::string plan = scratch.write("plan.json", kAgg);

  Arguments with(const Arguments& more) const {
    Arguments all = {"simulate", "--plan", plan};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  core::Json json(Arguments more) const {
    more.push_back("--json");
    const Run run = run_drydock(with(more));
    CAPTURE(run.err);
    REQUIRE(run.exit_code == 0);
    CHECK(run.err == "");
    return core::parse_json(run.out, "stdout");
  }
  // Exit code 2, this one line on stderr, nothing else anywhere.
  void refused(const Arguments& more, const std::string& message) const {
    Arguments all = with(more);
    all.insert(all.end(), {"--out", scratch / "refused/deep"});
    const Run run = run_drydock(all);
    CHECK(run.err == "drydock: " + message + "\n");
    CHECK(run.exit_code == 2);
    CHECK(run.out == "");
    CHECK(!std::filesystem::exists(scratch / "refused"));
  }
};

const char* const kFiles[] = {"summary.json", "requests.csv", "timeline.csv", "trace.json"};

size_t widest_line(const std::string& text) {
  size_t widest = 0, start = 0;
  while (start < text.size()) {
    const size_t end = std::min(text.find('\n', start), text.size());
    widest = std::max(widest, end - start);
    start = end + 1;
  }
  return widest;
}

}  // namespace

TEST_CASE("simulate: the fields that scripts rely on, and a page within 100 columns") {
  const SimulateBench bench;
  const core::Json json = bench.json({"--requests", "300"});
  CHECK(json["schema"] == "drydock.simulate");
  CHECK(json["version"] == 1);
  CHECK(json["requests"] == 300);
  CHECK(json["arrivals"] == 300);
  for (const char* figure : {"ttft_ms", "tpot_ms", "itl_ms", "request_latency_ms", "queue_ms"}) {
    CHECK(json[figure]["p50"] <= json[figure]["p90"]);
    CHECK(json[figure]["p90"] <= json[figure]["p95"]);
    CHECK(json[figure]["p95"] <= json[figure]["p99"]);
    CHECK(json[figure]["p99"] <= json[figure]["max"]);
  }
  CHECK(json["requests_per_s"].get<double>() == doctest::Approx(4).epsilon(0.2));  // 300 Poisson arrivals: 6 %
  CHECK(json["good_share"] == 1);
  CHECK(json["judged"]["meets_slo"] == true);
  CHECK(json["saturated"] == false);
  CHECK(json["pools"][0]["name"] == "worker");
  CHECK(json["pools"][0]["workers"].get<double>() == doctest::Approx(2));
  CHECK(json["kwh_per_million_tokens"] > 0);
  const Run page = run_drydock(bench.with({"--requests", "300", "--fail", "worker/1@10s+20s"}));
  CHECK(page.exit_code == 0);
  CHECK(page.err == "");  // no progress into a pipe
  CHECK(widest_line(page.out) <= 100);
}

TEST_CASE("--out writes four files, the same bytes for the same seed and any number of threads") {
  const SimulateBench bench;
  const auto run = [&](const char* out, const char* threads, const char* seed) {
    REQUIRE(run_drydock(bench.with({"--requests", "200", "--replications", "3", "--threads", threads, "--seed", seed,
                                    "--out", bench.scratch / out}))
                .exit_code == 0);
  };
  run("a", "1", "1"), run("b", "2", "1"), run("c", "2", "2");
  for (const std::string file : kFiles) {
    CAPTURE(file);
    const std::string a = core::read_file(bench.scratch / ("a/" + file));
    CHECK(a == core::read_file(bench.scratch / ("b/" + file)));
    CHECK(a != core::read_file(bench.scratch / ("c/" + file)));
  }
  CHECK(std::distance(std::filesystem::directory_iterator(bench.scratch / "a"), {}) == 4);
  const core::Csv requests = core::Csv::read(bench.scratch / "a/requests.csv");
  CHECK(requests.rows() == 200);
  requests.require({"arrival_s", "prompt_tokens", "output_tokens", "cached_tokens", "queue_ms", "ttft_ms", "tpot_ms",
                    "latency_ms", "worker", "migrations", "status"});
  const core::Csv timeline = core::Csv::read(bench.scratch / "a/timeline.csv");
  CHECK(timeline.rows() > 100);
  CHECK(timeline.rows() <= 2000);
  timeline.require(
      {"time_s", "worker_alive", "worker_starting", "worker_waiting", "worker_running", "worker_kv_share"});
  const core::Json trace = core::read_json(bench.scratch / "a/trace.json");
  CHECK(trace["traceEvents"].size() > 400);
  CHECK(trace["otherData"]["left_out"] == 0);
  const core::Json summary = core::read_json(bench.scratch / "a/summary.json");
  CHECK(summary["replications"] == 3);
  CHECK(summary["requests"] == 600);
  CHECK(!summary.contains("wall_ms"));
}

TEST_CASE("a run that is stopped leaves nothing in --out, nor the folders that it made") {
  const SimulateBench bench;
  const std::string out = bench.scratch / "deep/out";
  const Arguments arguments = bench.with({"--requests", "1000000000", "--out", out});
  const pid_t child = start_drydock(arguments);
  REQUIRE(child > 0);
  int status = 0;
  const auto begun = [&] {
    std::error_code missing;
    const auto begin = std::filesystem::directory_iterator(out, missing);
    return !missing && std::any_of(begin, std::filesystem::directory_iterator(), [](const auto& entry) {
      return entry.path().filename().string().starts_with("requests.csv.tmp") && entry.file_size() > 100'000;
    });
  };
  while (!begun()) {
    REQUIRE(::waitpid(child, &status, WNOHANG) == 0);
    ::usleep(1000);
  }
  ::kill(child, SIGTERM);
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
  CHECK(!std::filesystem::exists(bench.scratch / "deep"));
}

TEST_CASE("--exact gives every request the same times to a millionth") {
  const SimulateBench bench;
  for (const Arguments& load : std::vector<Arguments>{{"--rate", "8"}, {"--concurrency", "20"}}) {
    const auto times = [&](const char* out, bool exact) {
      Arguments all = bench.with({"--requests", "200", "--out", bench.scratch / out});
      all.insert(all.end(), load.begin(), load.end());
      if (exact) all.emplace_back("--exact");
      REQUIRE(run_drydock(all).exit_code == 0);
      const core::Csv csv = core::Csv::read(bench.scratch / (std::string(out) + "/requests.csv"));
      std::vector<std::vector<double>> rows;
      for (size_t r = 0; r < csv.rows(); ++r) {
        rows.emplace_back();
        for (const char* column : {"arrival_s", "queue_ms", "ttft_ms", "tpot_ms", "latency_ms"})
          rows.back().push_back(*csv.number(r, csv.column(column), 0, 1e9));
      }
      std::sort(rows.begin(), rows.end());
      return rows;
    };
    const auto runs = times("runs", false), steps = times("steps", true);
    REQUIRE(runs.size() == steps.size());
    // The files have 1e-6 ms and 1e-6 s, so that as much may be rounded away beside the relative millionth.
    for (size_t r = 0; r < runs.size(); ++r)
      for (size_t c = 0; c < runs[r].size(); ++c) CHECK(std::abs(runs[r][c] - steps[r][c]) <= 1e-6 * runs[r][c] + 2e-6);
  }
}

TEST_CASE("loads: closed loop, conversations, ramp, day, lengths, duration") {
  const SimulateBench bench;
  CHECK(bench.json({"--concurrency", "8", "--requests", "100"})["requests"] == 100);
  const core::Json talk = bench.json({"--sessions", "20,rate=1,turns=3,think=5s,system=500", "--isl", "300"});
  CHECK(talk["requests"] > 20);
  CHECK(talk["prefix_hit_rate"] > 0.2);
  CHECK(bench.json({"--ramp", "1:8:30s", "--requests", "100"})["requests"] == 100);
  const core::Json day = bench.json({"--rate", "5", "--diurnal", "0.8:20s", "--duration", "40s"});
  CHECK(day["requests"].get<double>() == doctest::Approx(200).epsilon(0.3));  // Poisson: 7 % deviation
  CHECK(bench.json({"--rate", "5", "--lengths", "lognormal:800/0.8,100/1", "--requests", "50"})["requests"] == 50);
  CHECK(bench.json({"--rate", "5", "--requests", "50", "--warmup", "10"})["arrivals"] == 60);
}

TEST_CASE("--until ends a run when its figures are known well enough, or says that they are not") {
  const SimulateBench bench;
  const core::Json rough = bench.json({"--until", "5%"}), fine = bench.json({"--until", "0.5%"}),
                   cut = bench.json({"--until", "0.01%", "--requests", "1200"});
  CHECK(rough["requests"] < fine["requests"]);
  for (const core::Json& run : {rough, fine}) {
    CHECK(run["until"]["reached"] == true);
    for (const char* figure : {"ttft_ms", "tpot_ms"})
      CHECK(run[figure]["mean_half_width"].get<double>() <=
            run["until"]["precision"].get<double>() * run[figure]["mean"].get<double>());
  }
  CHECK(cut["until"]["reached"] == false);
  CHECK(cut["requests"] == 1200);
  CHECK(run_drydock(bench.with({"--until", "0.01%", "--requests", "1200"})).out.find("not known to 0.01% yet") !=
        std::string::npos);
}

TEST_CASE("a trace is replayed with its prefixes; bad lines are told or counted") {
  const SimulateBench bench;
  const std::string trace = bench.scratch.write("t.jsonl", mooncake_trace());
  const core::Json json = bench.json({"--trace", trace});
  CHECK(json["requests"] == 20);
  CHECK(json["prefix_hit_rate"] > 0.5);  // 1024 of 1100 tokens, but for the first of each worker
  CHECK(bench.json({"--trace", trace, "--requests", "5"})["requests"] == 5);
  CHECK(bench.json({"--trace", trace, "--speed", "4"})["duration_s"] < json["duration_s"]);
  const std::string bad = bench.scratch.write(
      "bad.jsonl",
      mooncake_trace() + R"({"timestamp": 20000, "input_length": 0, "output_length": 3, "hash_ids": []})" + "\n");
  bench.refused({"--trace", bad},
                bad + ": line 21: field 'input_length': want a whole number from 1 to 10000000, found 0");
  const core::Json skipped = bench.json({"--trace", bad, "--skip-bad"});
  CHECK(skipped["requests"] == 20);
  CHECK(skipped["bad_lines"] == 1);
}

TEST_CASE("a prompt longer than the KV cache is rejected and counted, and the rest goes on") {
  const SimulateBench bench;
  const std::string trace = bench.scratch.write(
      "t.jsonl",
      mooncake_trace() + R"({"timestamp": 21000, "input_length": 5000000, "output_length": 3, "hash_ids": []})" + "\n");
  const core::Json json = bench.json({"--trace", trace});
  CHECK(json["rejected"] == 1);
  CHECK(json["requests"] == 20);
  CHECK(json["unfinished"] == 0);
}

TEST_CASE("more than the plan can serve is called saturated, and ends") {
  const SimulateBench bench;
  CHECK(bench.json({"--rate", "200", "--requests", "3000"})["saturated"] == true);
  CHECK(run_drydock(bench.with({"--rate", "200", "--requests", "3000"})).out.find("SATURATED") != std::string::npos);
}

TEST_CASE("failures: what moved, what was replayed, and how the tail changed") {
  const SimulateBench bench;
  const core::Json json = bench.json({"--rate", "8", "--requests", "400", "--fail", "worker/1@10s+20s"});
  CHECK(json["migrations"] > 0);
  CHECK(json["replayed_tokens"] > 0);
  CHECK(json["lost"] == 0);
  CHECK(json["requests"] == 400);
  const core::Json& ttft = json["failures"]["ttft_p99_ms"];
  CHECK(ttft["with"] > ttft["without"]);
  CHECK(ttft["without"] == json["without_failures"]["ttft_ms"]["p99"]);
  CHECK(bench.json({"--rate", "8", "--requests", "400", "--fail", "worker/1@10s", "--migrations", "0"})["lost"] > 0);
  const core::Json slow = bench.json({"--rate", "8", "--requests", "400", "--slow", "worker/0@5sx4+20s"});
  CHECK(slow["failures"]["tpot_p99_ms"]["with"] > slow["failures"]["tpot_p99_ms"]["without"]);
  CHECK(bench.json({"--rate", "8", "--requests", "400", "--mtbf", "40s", "--start-up", "5s"})["migrations"] > 0);
}

TEST_CASE("autoscaling: a policy beside fixed numbers of workers") {
  const SimulateBench bench;
  const std::string policy = bench.scratch.write(
      "hpa.json",
      R"({"policy": "hpa", "decode": {"initial": 1, "max": 4}, "hpa": {"target": 0.2, "stabilization_s": 30}})");
  const core::Json json = bench.json(
      {"--rate", "15", "--diurnal", "0.9:300s", "--duration", "300s", "--start-up", "10s", "--autoscale", policy});
  const core::Json& runs = json["autoscale"];
  REQUIRE(runs.size() >= 3);
  CHECK(runs[0]["name"] == "hpa");
  CHECK(runs[0]["changes"] > 1);
  CHECK(runs[1]["name"] == "fixed 1");
  CHECK(runs[0]["good_share"] > runs[1]["good_share"]);
  CHECK(runs.back()["name"] == "fixed 4");
  CHECK(runs[0]["gpu_hours"] < runs.back()["gpu_hours"]);
  bench.refused({"--rate", "5", "--autoscale", policy, "--mtbf", "1h"},
                "--autoscale: goes without --fail, --slow and --mtbf");
  const std::string apart =
      bench.scratch.write("apart.json", R"({"policy": "fixed", "prefill": {"initial": 1}, "decode": {"initial": 1}})");
  bench.refused({"--autoscale", apart},
                apart + ": field 'prefill': the plan has no prefill pool; want 'decode' only, for its workers");
}

TEST_CASE("compare: a column a plan, the best of each row marked") {
  const SimulateBench bench;
  const std::string other = bench.scratch.write("apart.json", kDisagg);
  const Arguments both = {"compare", "--plans", bench.plan, other, "--rate", "3", "--requests", "200"};
  const Run page = run_drydock(both);
  CHECK(page.exit_code == 0);
  CHECK(widest_line(page.out) <= 100);
  CHECK(page.out.find("*") != std::string::npos);
  CHECK(page.out.find("apart") != std::string::npos);
  Arguments scripted = both;
  scripted.emplace_back("--json");
  const core::Json json = core::parse_json(run_drydock(scripted).out, "stdout");
  CHECK(json["schema"] == "drydock.compare");
  REQUIRE(json["plans"].size() == 2);
  CHECK(json["plans"][1]["name"] == "apart");
  CHECK(json["plans"][0]["ttft_ms"] == bench.json({"--rate", "3", "--requests", "200"})["ttft_ms"]);
  const Run one = run_drydock({"compare", "--plans", bench.plan});
  CHECK(one.err == "drydock: --plans: want 2 to 8 files, not 1\n");
  CHECK(one.exit_code == 2);
}

TEST_CASE("simulate: bad input is one line that names the flag") {
  const SimulateBench bench;
  bench.refused({"--fail", "prefil/0@30s"}, "--fail 'prefil/0': the plan has no pool 'prefil', only worker");
  bench.refused({"--fail", "worker/9@30s"}, "--fail 'worker/9': pool 'worker' has workers 0 to 1");
  bench.refused({"--fail", "worker/0"}, "--fail 'worker/0': want POOL/INDEX@TIME such as prefill/0@30s");
  const std::string time = ": want a time above 0 with its unit, such as 500ms, 30s, 2min or 1h";
  bench.refused({"--fail", "worker/0@soon"}, "--fail 'soon'" + time);
  bench.refused({"--slow", "worker/0@10s"},
                "--slow 'worker/0@10s': want POOL/INDEX@TIMExFACTOR such as worker/0@10sx2");
  bench.refused({"--mtbf", "-1h"}, "--mtbf '-1h'" + time);
  bench.refused({"--duration", "30"}, "--duration '30'" + time);
  bench.refused({"--trace", "/no/such"}, "/no/such: can't be read: No such file or directory");
  const std::string trace = bench.scratch.write("t.jsonl", mooncake_trace());
  bench.refused({"--trace", trace, "--speed", "0"}, "--speed '0': want a number above 0 and at most 1000000");
  bench.refused({"--trace", trace, "--rate", "3"}, "--rate and --trace: give one of them");
  bench.refused({"--trace", trace, "--isl", "3"}, "--isl: a trace has its own lengths");
  bench.refused({"--trace", trace, "--replications", "2"},
                "--replications: a trace is the same every time; want 1, or --mtbf for failures that differ");
  bench.refused({"--trace", trace, "--until", "2%"}, "--until: a trace is replayed as it is");
  bench.refused({"--until", "60%"}, "--until '60%': want at most 50%, such as 2%");
  bench.refused({"--speed", "2"}, "--speed: goes with --trace");
  bench.refused({"--rate", "3", "--concurrency", "4"}, "--rate and --concurrency: give one of them");
  bench.refused({"--router", "fast"},
                "--router 'fast': want round_robin, least_outstanding_tokens, power_of_two or kv_aware");
  bench.refused({"--sessions", "3,foo=2"},
                "--sessions 'foo=2': want a number of sessions, then any of rate=, turns=, think=, system=, most=");
  bench.refused({"--ramp", "1:2"}, "--ramp '1:2': want from:to:over, such as 2:20:300s");
  bench.refused({"--percentile", "p101"}, "--percentile 'p101': want mean, or p50 to p99.9 such as p95");
  bench.refused({"--threads", "0"}, "--threads '0': want a whole number from 1 to 1024");
  bench.refused({"--local-prefill", "100"}, "--local-prefill: goes with a plan of prefill and decode pools");
  bench.refused({"--isl", "100000", "--osl", "3"},
                "--isl and --osl: 100000 and 3 tokens are more than the context of Qwen/Qwen3-32B, 40960 tokens");
}

TEST_CASE("simulate and compare have help with examples") {
  for (const char* command : {"simulate", "compare"}) {
    const Run run = run_drydock({command, "--help"});
    CHECK(run.exit_code == 0);
    CHECK(run.out.find("Examples:") != std::string::npos);
  }
}

TEST_CASE("a plan that can't hold one request is refused") {
  const SimulateBench bench;
  std::string text = kAgg;
  text.replace(text.find("Qwen/Qwen3-32B"), 14, "Llama-3.1-405B");
  const Run run = run_drydock({"simulate", "--plan", bench.scratch.write("big.json", text), "--rate", "1"});
  CHECK(run.exit_code == 2);
  CHECK(run.err.find("is out of memory") != std::string::npos);
  CHECK(lines(run.err) == 1);
}
