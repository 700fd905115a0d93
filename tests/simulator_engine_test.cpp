#include <doctest/doctest.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "models/catalogue.h"
#include "simulator/serving.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

BackendModel plain(Admission admission = Admission::mixed_chunks) {
  BackendModel b;
  b.admission = admission;
  return b;
}

struct EngineBed {
  models::Architecture architecture;
  models::System system;
  perfdb::KernelTimes times;
  BackendModel backend = plain();

  explicit EngineBed(const char* model = "meta-llama/Llama-3.1-70B", const char* system_name = "h200_sxm")
      : architecture(models::find_model(model)), system(models::find_system(system_name)), times(system.hardware) {}

  Engine engine(const models::Parallelism& p, const char* precision = "fp8") {
    return {architecture, models::choose_precision(architecture, precision), p, system, times, backend, 8192};
  }
};

models::Workload workload(int64_t isl, int64_t osl) {
  models::Workload w;
  w.isl = isl;
  w.osl = osl;
  return w;
}

bool ordered(const core::Figure& f) { return 0 < f.low && f.low <= f.value && f.value <= f.high; }

}  // namespace

TEST_CASE("KV memory is what weights and buffers leave of the GPU's share") {
  EngineBed bed;
  const Engine engine = bed.engine({1, 1, 1, 1, 1});
  // 70.6 GB of fp8 weights with bf16 embeddings (72.7 GB) of 0.9 x 150.8 GB; 327,680 bytes a token.
  CHECK(engine.memory().weights == doctest::Approx(72.7e9).epsilon(0.01));
  CHECK(engine.kv_tokens() ==
        doctest::Approx((0.9 * 143771.0 * 1048576 - engine.memory().fixed()) / 327680).epsilon(1e-5));
  CHECK(engine.sequences_that_fit(1000) == static_cast<int64_t>(engine.kv_tokens() / 1000));
  CHECK(bed.engine({1, 1, 1, 1, 1}, "bf16").sequences_that_fit(1000) == 0);  // 141 GB of weights
  CHECK(bed.engine({2, 1, 1, 1, 1}, "bf16").sequences_that_fit(1000) > 0);
}

TEST_CASE("more GPUs make a token faster, a larger batch slower but more efficient") {
  EngineBed bed;
  const auto w = workload(1000, 1000);
  double before = 1e9;
  for (const int tp : {1, 2, 4, 8}) {
    const auto d = bed.engine({tp, 1, 1, 1, 1}).decode(w, 16);
    CHECK(ordered(d.tpot_ms));
    CHECK(d.tpot_ms.value < before);
    before = d.tpot_ms.value;
  }
  const Engine engine = bed.engine({4, 1, 1, 1, 1});
  CHECK(engine.decode(w, 64).tpot_ms.value > engine.decode(w, 8).tpot_ms.value);
  CHECK(engine.decode(w, 64).requests_per_s.value > engine.decode(w, 8).requests_per_s.value);
  CHECK(engine.prefill(workload(8000, 10), 1).batch_ms.value >
        3 * engine.prefill(workload(2000, 10), 1).batch_ms.value);
}

TEST_CASE("a prefix in the cache saves prefill but not decode") {
  EngineBed bed;
  const Engine engine = bed.engine({4, 1, 1, 1, 1});
  auto hit = workload(8000, 500), miss = hit;
  hit.prefix_hit = 0.75;
  CHECK(engine.prefill(hit, 1).batch_ms.value < 0.5 * engine.prefill(miss, 1).batch_ms.value);
  CHECK(engine.decode(hit, 8).tpot_ms.value == doctest::Approx(engine.decode(miss, 8).tpot_ms.value).epsilon(1e-9));
}

TEST_CASE("a closed loop's figures hang together") {
  EngineBed bed;
  const Engine engine = bed.engine({8, 1, 1, 1, 1});
  const auto agg = engine.aggregated(workload(2000, 500), 32, 1000);
  CHECK(ordered(agg.ttft_ms));
  CHECK(ordered(agg.tpot_ms));
  CHECK(agg.running <= 32);
  const double latency_s = (agg.ttft_ms.value + 499 * agg.tpot_ms.value) * 1e-3;
  CHECK(agg.requests_per_s.value == doctest::Approx(32 / latency_s).epsilon(0.05));
  CHECK(engine.aggregated(workload(2000, 500), 64, 1000).ttft_ms.value > agg.ttft_ms.value);
}

TEST_CASE("an open loop approaches the lone request at low rates and refuses what it can't do") {
  EngineBed bed;
  const Engine engine = bed.engine({8, 1, 1, 1, 1});
  const auto w = workload(2000, 500);
  const auto lone = engine.aggregated(w, 1, 1000);
  const auto idle = engine.open_loop(w, 0.001, 1000);
  REQUIRE(idle);
  CHECK(idle->tpot_ms.value == doctest::Approx(lone.tpot_ms.value).epsilon(0.05));
  const auto busy = engine.open_loop(w, 4, 1000);
  REQUIRE(busy);
  CHECK(busy->tpot_ms.value > idle->tpot_ms.value);
  CHECK(busy->ttft_ms.value > idle->ttft_ms.value);
  CHECK(!engine.open_loop(w, 1e5, 1000));
}

TEST_CASE("disaggregated pools are as fast as the slower side, and every wait is in TTFT") {
  EngineBed bed;
  const Engine prefill = bed.engine({4, 1, 1, 1, 1}), decode = bed.engine({4, 1, 1, 1, 1});
  const auto w = workload(4000, 500);
  const auto transfer = kv_transfer_ms(bed.architecture, models::choose_precision(bed.architecture, "fp8"),
                                       {4, 1, 1, 1, 1}, {4, 1, 1, 1, 1}, bed.system, bed.system, 4000);
  // 4000 tokens x 81,920 bytes a GPU over 0.8 of a 50 GB/s network: 8.2 ms, and descriptors.
  CHECK(transfer.low == doctest::Approx(8.19).epsilon(0.01));
  CHECK(transfer.value > transfer.low);
  const auto one = disaggregated(prefill, 1, 1, decode, 1, 64, transfer, w),
             two = disaggregated(prefill, 2, 1, decode, 1, 64, transfer, w);
  REQUIRE(one);
  REQUIRE(two);
  CHECK(one->requests_per_s.value <= prefill.prefill(w, 1).requests_per_s.value * 1.0001);
  CHECK(two->requests_per_s.value >= one->requests_per_s.value);
  CHECK(two->ttft_ms.value <= one->ttft_ms.value);
  // Little: requests in flight = rate x time in the system, but for the first burst's share.
  const double in_system = two->requests_per_s.value * (two->ttft_ms.value + 499 * two->tpot_ms.value) * 1e-3;
  CHECK(in_system >= 63);
  auto rated = w;
  rated.rate = 1e6;
  CHECK(!disaggregated(prefill, 1, 1, decode, 1, 64, transfer, rated));
}

TEST_CASE("replicas multiply the rate and leave the latencies") {
  EngineBed bed;
  const Engine engine = bed.engine({8, 1, 1, 1, 1});
  auto w = workload(1000, 200);
  w.concurrency = 16;
  const auto one = aggregated(engine, 1, 100, w);
  w.concurrency = 64;
  const auto four = aggregated(engine, 4, 100, w);
  REQUIRE(one);
  REQUIRE(four);
  CHECK(four->requests_per_s.value == doctest::Approx(4 * one->requests_per_s.value));
  CHECK(four->tpot_ms.value == doctest::Approx(one->tpot_ms.value));
}

TEST_CASE("replicas without a request stand idle") {
  EngineBed bed;
  const Engine engine = bed.engine({8, 1, 1, 1, 1});
  auto w = workload(1000, 200);
  w.concurrency = 2;
  CHECK(aggregated(engine, 8, 100, w)->requests_per_s.value ==
        doctest::Approx(aggregated(engine, 2, 100, w)->requests_per_s.value));
}

TEST_CASE("a lone prompt under attention DP is computed by one rank, with its experts on all") {
  EngineBed bed("deepseek-ai/DeepSeek-R1");
  const auto w = workload(8192, 100);
  const double shared = bed.engine({8, 1, 1, 1, 8}).prefill(w, 1).batch_ms.value;
  const double alone = bed.engine({1, 1, 8, 1, 8}).prefill(w, 1).batch_ms.value;
  CHECK(alone > shared);  // attention and dense layers are not split
  // Eight prompts keep eight ranks busy, so they take less than eight lone ones.
  CHECK(bed.engine({1, 1, 8, 1, 8}).prefill(w, 8).batch_ms.value < 8 * alone);
}

TEST_CASE("KV that receivers hold in copies is sent once for each copy") {
  EngineBed bed("deepseek-ai/DeepSeek-R1");
  const auto precision = models::choose_precision(bed.architecture, "fp8");
  const auto low = [&](int from, int to) {
    return kv_transfer_ms(bed.architecture, precision, {from, 1, 1, from, 1}, {to, 1, 1, to, 1}, bed.system, bed.system,
                          4000)
        .low;
  };
  // The latent is the same on every rank: 4000 x 70,272 bytes over 0.8 of 50 GB/s to each receiver.
  CHECK(low(8, 1) == doctest::Approx(4000 * 70272.0 / 40e9 * 1e3));
  CHECK(low(8, 8) == doctest::Approx(low(8, 1)));
  CHECK(low(1, 8) == doctest::Approx(8 * low(8, 1)));
}

TEST_CASE("a step's breakdown adds up and says what it rests on") {
  EngineBed bed("deepseek-ai/DeepSeek-R1");
  const Engine engine = bed.engine({1, 1, 8, 1, 8});
  const auto rows = engine.breakdown(workload(1000, 1000), models::Role::decode, 128);
  double share = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    share += rows[i].share;
    if (i > 0) CHECK(rows[i].us <= rows[i - 1].us);
    CHECK(rows[i].provenance == core::Provenance::analytic);  // no database
  }
  CHECK(share == doctest::Approx(1));
}

TEST_CASE("a calibration with a wrong figure is refused by name") {
  const auto file =
      std::filesystem::temp_directory_path() / ("drydock_calibration_" + std::to_string(::getpid()) + ".json");
  std::string text = core::read_file(models::data_dir() / "calibration.json");
  core::write_file(file, text);
  CHECK(read_backend_models(file).size() == 4);
  const size_t at = text.find("\"host_us\"");
  text.replace(at, 9, "\"host_use\"");
  core::write_file(file, text);
  try {
    read_backend_models(file);
    FAIL("accepted");
  } catch (const core::Error& error) {
    CHECK(std::string(error.what()).find("'trtllm.host_use': not known here, did you mean 'host_us'?") !=
          std::string::npos);
  }
  std::filesystem::remove(file);
}
