#include <doctest/doctest.h>

#include "models/catalogue.h"
#include "simulator/closed_loop.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

// Qwen3-8B on one H100 by the roofline alone: what the loop does with step times does not depend on how good they are.
struct Bed {
  models::Architecture architecture = models::find_model("Qwen/Qwen3-8B");
  models::System system = models::find_system("h100_sxm");
  perfdb::KernelTimes times{system.hardware};
  BackendModel backend;
  models::Parallelism parallelism{};
  StepTimer timer{architecture, architecture.precision, parallelism, times, backend};

  StepTable table(double prompt, double output, int64_t budget = 8192) {
    return {timer, 1, {prompt, 0, output}, budget};
  }
};

ClosedLoop loop_of(double concurrency, double slots, double output) {
  ClosedLoop loop;
  loop.concurrency = concurrency;
  loop.prompts = 10 * concurrency;
  loop.slots = slots;
  loop.shortest_output = loop.longest_output = output;
  return loop;
}

}  // namespace

TEST_CASE("a lone request waits for nobody: TTFT is its prefill, TPOT its decode step") {
  Bed bed;
  StepTable table = bed.table(1000, 100);
  const LoopTimes t = follow(table, Admission::mixed_chunks, loop_of(1, 8, 100));
  CHECK(t.ttft_us == doctest::Approx(table.prefill(1, 0).us));
  CHECK(t.tpot_us == doctest::Approx(table.decode(1).us));
  CHECK(t.latency_us == doctest::Approx(t.ttft_us + 99 * t.tpot_us));
}

TEST_CASE("what is in flight obeys Little's law") {
  Bed bed;
  for (const Admission admission : {Admission::mixed_chunks, Admission::mixed_whole, Admission::prefill_first}) {
    StepTable table = bed.table(800, 200);
    ClosedLoop loop = loop_of(32, 32, 200);
    loop.prompts = 3200;  // long, so that start and end do not count
    loop.gap_us = 0;
    loop.shortest_output = 150;
    loop.longest_output = 250;
    const LoopTimes t = follow(table, admission, loop);
    CHECK(loop.prompts / t.seconds * t.latency_us * 1e-6 == doctest::Approx(32).epsilon(0.02));
  }
}

TEST_CASE("fewer slots than requests: the wait for a slot is part of TTFT") {
  Bed bed;
  StepTable table = bed.table(500, 100);
  const LoopTimes free = follow(table, Admission::mixed_chunks, loop_of(32, 32, 100));
  const LoopTimes queued = follow(table, Admission::mixed_chunks, loop_of(32, 8, 100));
  CHECK(queued.running <= 8.0);
  // Three of four requests wait, each about three times the life of a running one.
  CHECK(queued.ttft_us > 2.0 * (queued.latency_us - queued.ttft_us));
  CHECK(queued.tpot_us < free.tpot_us);
}

TEST_CASE("prompts that stop decode make outputs wait; prompts beside decode cost them less") {
  Bed bed;
  StepTable table = bed.table(4000, 100);
  const LoopTimes stops = follow(table, Admission::prefill_first, loop_of(16, 16, 100));
  const LoopTimes mixes = follow(table, Admission::mixed_chunks, loop_of(16, 16, 100));
  CHECK(stops.tpot_us > table.decode(16).us);
  CHECK(mixes.tpot_us > table.decode(16).us);
}

TEST_CASE("bundles of requests give the figures of single ones") {
  Bed bed;
  for (const double concurrency : {96.0, 256.0}) {
    StepTable table = bed.table(1000, 300);
    ClosedLoop loop = loop_of(concurrency, concurrency, 300);
    loop.shortest_output = 240;
    loop.bundles = 4096;
    const LoopTimes single = follow(table, Admission::mixed_chunks, loop);
    loop.bundles = 64;
    const LoopTimes bundled = follow(table, Admission::mixed_chunks, loop);
    CHECK(bundled.tpot_us == doctest::Approx(single.tpot_us).epsilon(0.02));
    CHECK(bundled.ttft_us == doctest::Approx(single.ttft_us).epsilon(0.15));
  }
}

TEST_CASE("the same question gets the same answer") {
  Bed bed;
  StepTable a = bed.table(700, 90), b = bed.table(700, 90);
  const ClosedLoop loop = loop_of(40, 20, 90);
  CHECK(follow(a, Admission::mixed_whole, loop).ttft_us == follow(b, Admission::mixed_whole, loop).ttft_us);
}

TEST_CASE("a long prompt is taken in chunks of the budget, and its parts add up") {
  Bed bed;
  StepTable chunked = bed.table(8192, 10, 2048), whole = bed.table(8192, 10, 8192);
  CHECK(chunked.steps_per_prompt() == 4);
  CHECK(whole.steps_per_prompt() == 1);
  // The same arithmetic, with the weights read four times and four times the small kernels.
  CHECK(chunked.prefill(1, 0).us > whole.prefill(1, 0).us);
  CHECK(chunked.prefill(1, 0).us < 1.3 * whole.prefill(1, 0).us);
}

TEST_CASE("step times grow with what runs, and interpolation between grid points stays between them") {
  Bed bed;
  StepTable table = bed.table(1000, 1000);
  double before = 0;
  for (const double running : {1.0, 2.0, 3.0, 5.0, 8.0, 100.0, 150.0, 400.0}) {
    const double us = table.decode(running).us;
    CHECK(us >= before);
    before = us;
  }
  CHECK(table.decode(48).us == doctest::Approx((table.decode(32).us + table.decode(64).us) / 2));
  CHECK(table.prefill(4, 0).us > table.prefill(2, 0).us);
  CHECK(table.prefill(1, 64).us > table.prefill(1, 0).us);
}
