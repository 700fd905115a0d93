#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "core/error.h"
#include "models/catalogue.h"
#include "simulator/online_experts.h"
#include "simulator/serving.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

const char* const kModel = "deepseek-ai/DeepSeek-R1";  // 256 experts in 8 groups, 8 a token, 58 layers of them

models::Experts skewed(double skew, int slots = 0) { return {skew, "", slots}; }

struct ExpertBed {
  models::Architecture architecture = models::find_model(kModel);
  models::Precision precision = models::choose_precision(architecture, "fp8");
  models::Parallelism parallelism;
  models::System system;
  perfdb::KernelTimes times;
  BackendModel backend;
  std::shared_ptr<const ExpertLoad> load;
  StepTimer timer;

  ExpertBed(const models::Parallelism& p, const models::Experts& experts,
            models::System on = models::find_system("h200_sxm"))
      : parallelism(p),
        system(std::move(on)),
        times(system.hardware),
        load(expert_load(experts, architecture, p, system, "test")),
        timer(architecture, precision, parallelism, times, backend, load.get()) {}

  StepTimer::Parts parts(double sequences) const {
    StepTimer::Scratch scratch;
    const models::BatchPart part{sequences, 1, 2000, true, true};
    return timer.parts({&part, 1}, 0, scratch);
  }
};

double step_us(const ExpertBed& bed, double sequences, const StepOptions& options = {}) {
  TablePrice price(bed.timer, bed.parallelism.attention_dp, options);
  const StepWork each{sequences, sequences * 2000, {}, 0};
  const std::vector<StepWork> work(static_cast<size_t>(bed.parallelism.attention_dp), each);
  return price.step_us(work);
}

std::string experts_error(const models::Experts& experts, const char* model = kModel) {
  try {
    ExpertBed bed({1, 1, 8, 1, 8}, {});
    expert_load(experts, models::find_model(model), bed.parallelism, bed.system, "x");
  } catch (const core::Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("evenly loaded or not spread experts have no busiest GPU") {
  CHECK(!ExpertBed({1, 1, 8, 1, 8}, {}).load);
  CHECK(!ExpertBed({8, 1, 1, 8, 1}, skewed(1)).load);
}

TEST_CASE("experts take as long as the busiest GPU's, and the rest of a step does not change") {
  const ExpertBed even({1, 1, 8, 1, 8}, {}), uneven({1, 1, 8, 1, 8}, skewed(0.8));
  for (const double sequences : {1.0, 5.0, 64.0}) {
    const auto a = even.parts(sequences), b = uneven.parts(sequences);
    CHECK(b.experts == doctest::Approx(a.experts * uneven.load->busiest_share(8 * sequences)));
    CHECK(b.all() - b.experts == doctest::Approx(a.all() - a.experts));
    CHECK(step_us(uneven, sequences) > step_us(even, sequences));
  }
}

// One row stands for all layers, so the mean over sampled layers is that row's share.
TEST_CASE("the share is the expected one at powers of two, and between them between") {
  const tests::Scratch scratch;
  std::string row;
  for (int i = 0; i < 256; ++i) row += (i ? "," : "") + std::to_string(1 + i % 7);
  const std::string file = scratch.write("h.json", "{\"layers\": [[" + row + "]]}");
  const ExpertBed bed({1, 1, 8, 1, 8}, {std::nullopt, file, 0});
  std::vector<double> weights;
  for (int i = 0; i < 256; ++i) weights.push_back(1 + i % 7);
  const auto placement = scheduler::contiguous_placement(256, 8);
  for (const int64_t tokens : {1, 16, 4096})
    CHECK(bed.load->busiest_share(static_cast<double>(tokens)) ==
          doctest::Approx(scheduler::expected_busiest_share(weights, placement, 8, 8, tokens)));
  const double middle = (bed.load->busiest_share(64) + bed.load->busiest_share(128)) / 2;
  CHECK(bed.load->busiest_share(96) == doctest::Approx(middle));
  // 256 experts in 8 GPUs of 32, counts 1..7 in turn: 32 = 4 x 7 + 4, so GPUs differ by their last four.
  CHECK(bed.load->imbalance_before() ==
        doctest::Approx(scheduler::imbalance(scheduler::gpu_loads(weights, placement, 8))));
}

TEST_CASE("redundant slots placed by EPLB even the load out, the same each time") {
  const models::Parallelism wide{1, 1, 32, 1, 32};
  const ExpertBed plain(wide, skewed(0.8)), placed(wide, skewed(0.8, 288)), again(wide, skewed(0.8, 288));
  CHECK(placed.load->imbalance_before() == plain.load->imbalance_before());
  CHECK(placed.load->imbalance_after() < 0.2 * plain.load->imbalance_after());
  CHECK(placed.load->busiest_share(4096) < plain.load->busiest_share(4096));
  CHECK(placed.load->placement_json() == again.load->placement_json());
  const core::Json json = core::parse_json(placed.load->placement_json(), "placement");
  REQUIRE(json["layers"].size() == 58);
  for (const core::Json& layer : json["layers"]) {
    CHECK(layer.size() == 288);
    CHECK(std::set<int>(layer.begin(), layer.end()).size() == 256);  // every expert is somewhere
  }
}

TEST_CASE("an expert group stays on one node where groups spread evenly over nodes") {
  const ExpertBed bed({1, 1, 16, 1, 16}, skewed(0.8, 288));
  const core::Json json = core::parse_json(bed.load->placement_json(), "placement");
  for (const core::Json& layer : json["layers"]) {
    std::set<int> groups[2];
    for (size_t slot = 0; slot < 288; ++slot) groups[slot / 144].insert(layer[slot].get<int>() / 32);
    CHECK(groups[0].size() == 4);
    CHECK(groups[1].size() == 4);
  }
}

// 58 layers x 32 slots of 3 x 7168 x 2048 fp8 weights more over 32 GPUs: one expert a layer and GPU.
TEST_CASE("redundant slots take memory") {
  const ExpertBed bed({1, 1, 32, 1, 32}, {});
  const auto weights = [&](double copies) {
    return models::stage_memory(bed.architecture, bed.precision, bed.parallelism, 0, 8192, copies).weights;
  };
  CHECK(weights(288.0 / 256) - weights(1) ==
        doctest::Approx(58 * 3.0 * 7168 * 2048 * core::bytes_per_element(bed.precision.moe)));
  const Engine plain(bed.architecture, bed.precision, bed.parallelism, bed.system, bed.times, bed.backend, 8192);
  const ExpertBed placed(bed.parallelism, skewed(0.8, 288));
  const Engine redundant(bed.architecture, bed.precision, bed.parallelism, bed.system, bed.times, bed.backend, 8192,
                         engine_options({}, placed.load, models::Role::decode));
  CHECK(redundant.memory().weights - plain.memory().weights == doctest::Approx(weights(288.0 / 256) - weights(1)));
  CHECK(redundant.kv_tokens() < plain.kv_tokens());
}

TEST_CASE("what can't be placed is refused by name") {
  CHECK(experts_error(skewed(1, 255)) == "x: 255 slots can't hold the 256 experts of deepseek-ai/DeepSeek-R1");
  CHECK(experts_error(skewed(1, 257)) == "x: 257 expert slots do not spread evenly over 8 GPUs");
  CHECK(experts_error({std::nullopt, "no-such.json", 0}).find("no-such.json") != std::string::npos);
  CHECK(experts_error(skewed(1), "meta-llama/Llama-3.1-70B").find("has no experts") != std::string::npos);
}

// Halves read weights twice, which is what their efficiency costs: two steps of half the sequences bound it from above.
TEST_CASE("overlap is never slower than its parts in turn") {
  for (const auto& [ranks, system] : {std::pair{16, "h200_sxm"}, std::pair{64, "gb200"}}) {
    const ExpertBed bed({1, 1, ranks, 1, ranks}, {}, models::find_system(system));
    StepOptions halves, beside;
    halves.two_batch_overlap = true;
    beside.shared_expert_overlap = true;
    for (const double n : {4.0, 16.0, 64.0, 256.0}) {
      CHECK(step_us(bed, n, halves) <= 2 * step_us(bed, n / 2));
      CHECK(step_us(bed, n, beside) <= step_us(bed, n));
      CHECK(step_us(bed, n, beside) >= step_us(bed, n) - bed.parts(n).shared_expert * 1.001);
    }
  }
}

TEST_CASE("no step under overlap beats the bound") {
  const ExpertBed bed({1, 1, 16, 1, 16}, skewed(0.5));
  auto options = engine_options({}, bed.load, models::Role::decode);
  options.two_batch_overlap = options.shared_expert_overlap = true;
  const Engine engine(bed.architecture, bed.precision, bed.parallelism, bed.system, bed.times, bed.backend, 8192,
                      options);
  models::Workload w;
  w.isl = 2000, w.osl = 200;
  const auto lease = engine.lease_price();
  for (const double each : {1.0, 4.0, 32.0, 200.0}) {
    const auto bound = engine.bound(w, models::Role::decode, static_cast<int64_t>(each * 16), 0);
    const StepWork rank{each, each * 2000, {}, 0};
    const std::vector<StepWork> work(16, rank);
    CHECK(bound.requests_per_s <= 1e300);
    CHECK(16 * each / (199 * lease.price().step_us(work) * 1e-6) <= bound.requests_per_s);
    CHECK(bound.tpot_ms <= lease.price().step_us(work) * 1e-3);
  }
}

// The same GPUs with the other wiring: 16 within one NVLink domain, or 64 of a rack cut into domains of 8.
TEST_CASE("wide expert parallelism pays for its all-to-all by topology") {
  models::System joined = models::find_system("h200_sxm"), cut = models::find_system("gb200");
  joined.hardware.nvlink_domain = 16;
  cut.hardware.nvlink_domain = 8;
  const ExpertBed nodes({1, 1, 16, 1, 16}, {}), one({1, 1, 16, 1, 16}, {}, joined);
  const ExpertBed rack({1, 1, 64, 1, 64}, {}, models::find_system("gb200")), split({1, 1, 64, 1, 64}, {}, cut);
  // At 256 tokens a rank bytes outweigh latency: links differ by 9 (450 to 50 GB/s) and by more on GB200.
  CHECK(nodes.parts(256).exchange > 3 * one.parts(256).exchange);
  CHECK(split.parts(256).exchange > 3 * rack.parts(256).exchange);
  CHECK(nodes.parts(256).experts == doctest::Approx(one.parts(256).experts));
  CHECK(step_us(nodes, 256) > step_us(one, 256));
}

TEST_CASE("experts that move while serving") {
  const models::Parallelism ep32{1, 1, 32, 1, 32};
  const ExpertBed bed(ep32, skewed(0.8, 288));
  scheduler::BalancerConfig config;
  config.cluster = bed.load->cluster();
  config.interval_steps = 20;
  config.moves_per_step = 58 * 8;  // 64 for the 8 layers that are looked at
  config.bytes_per_expert = 44e6;
  ExpertDrift drift;
  drift.steps = 400;
  drift.tokens = 8192;
  drift.share_per_1000_steps = 0;

  SUBCASE("popularity that stays: placed once is as good as it gets, and moving comes near it") {
    const ExpertBalance still = drift_experts(*bed.load, config, drift);
    CHECK(still.fixed == doctest::Approx(still.oracle));
    CHECK(still.fixed < still.contiguous / 3);
    // It begins with an even placement, has the first look after 20 steps, and 8 layers of 288 slots take 8 x 288 / 64
    // = 36 steps at most: 344 of the 400 steps are served from counts, which are uneven by noise alone.
    CHECK(still.online < still.contiguous * (56.0 / 400) + 0.05);
    CHECK(still.moves > 0);
    // 58 layers stand behind the 8.
    CHECK(still.moved_bytes == doctest::Approx(static_cast<double>(still.moves) * 44e6).epsilon(1e-5));
    CHECK(still.worst_bytes_per_step >= still.bytes_per_step);
  }
  SUBCASE("popularity that drifts: what was placed once falls behind") {
    drift.share_per_1000_steps = 2;  // 80 % of the experts trade within these steps
    const ExpertBalance drifting = drift_experts(*bed.load, config, drift);
    CHECK(drifting.oracle < drifting.online);
    CHECK(drifting.online < drifting.fixed);
    const ExpertBalance again = drift_experts(*bed.load, config, drift);
    CHECK(again.online == drifting.online);
    CHECK(again.moves == drifting.moves);
  }
  SUBCASE("refused") {
    drift.steps = 0;
    CHECK_THROWS_WITH_AS(drift_experts(*bed.load, config, drift), "steps: want 1 to 1000000", core::Error);
    drift.steps = 1, drift.share_per_1000_steps = -1;
    CHECK_THROWS_AS(drift_experts(*bed.load, config, drift), core::Error);
  }
}
