// What `drydock bench`'s client costs: streams of a server that writes one token at a time, at known moments, so that
// what is measured can be held against what is true. usage: drydock_client_bench [STREAMS...]    (64 512)
#include <charconv>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "runtime/bench_client.h"
#include "simulator/metrics.h"
#include "tests/fake_openai.h"

namespace {

using namespace drydock;

constexpr int kTokens = 200;
constexpr double kFirst_ms = 50, kGap_ms = 20;

// False: not every request was answered.
bool measure(int64_t streams) {
  const tests::FakeServer server(
      [](const std::string&, const std::string&) { return tests::FakeAnswer::stream(kTokens, kFirst_ms, kGap_ms); });
  simulator::ClosedLoopOptions asked;
  asked.concurrency = streams, asked.prompts = streams * 2, asked.warmup = 0;
  asked.lengths = simulator::LengthDistribution::fixed(20, kTokens);
  runtime::BenchRun run;
  run.target.url = server.url(), run.target.timeout_s = 60;
  run.form.model = "fake", run.streams = streams;
  simulator::Recorder::Options keep;
  keep.keep_records = true;
  simulator::Recorder recorder(keep);
  simulator::CountedLoad load(simulator::make_closed_loop(asked));
  const runtime::BenchTotals totals = run_bench(run, load, recorder);
  const auto chunks = static_cast<double>(totals.chunks);
  const auto ttft = simulator::distribution(recorder.ttft_ms()), tpot = simulator::distribution(recorder.tpot_ms());
  std::printf(
      "%lld streams: %.0f chunks/s, client %.1f %% of a core, %.2f us a chunk; TTFT mean %.2f of %g ms, TPOT mean %.3f "
      "of %g ms, ITL p99 %.2f ms\n",
      static_cast<long long>(streams), chunks / totals.wall_s, totals.cpu_s / totals.wall_s * 100,
      totals.cpu_s / chunks * 1e6, ttft.mean, kFirst_ms, tpot.mean, kGap_ms, recorder.itl_ms().quantile(0.99));
  return totals.answered == streams * 2;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int64_t> all;
  for (int i = 1; i < argc; ++i) {
    int64_t streams = 0;
    const char* end = argv[i] + std::strlen(argv[i]);
    const auto [at, status] = std::from_chars(argv[i], end, streams);
    if (status != std::errc() || at != end || streams < 1 || streams > 4096) {
      std::fprintf(stderr, "usage: drydock_client_bench [STREAMS...], each 1 to 4096\n");
      return 2;
    }
    all.push_back(streams);
  }
  if (all.empty()) all = {64, 512};
  try {
    bool answered = true;
    for (const int64_t streams : all) answered &= measure(streams);
    return answered ? 0 : 1;
  } catch (const core::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
