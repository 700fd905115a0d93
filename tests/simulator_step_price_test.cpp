#include <doctest/doctest.h>

#include <cmath>

#include "core/random.h"
#include "models/catalogue.h"
#include "simulator/serving.h"
#include "simulator/step_price.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

struct PriceBed {
  models::Architecture architecture;
  models::Precision precision;
  models::System system = models::find_system("h200_sxm");
  perfdb::KernelTimes times{system.hardware};
  BackendModel backend;
  models::Parallelism parallelism;
  StepTimer timer;
  TablePrice price;

  PriceBed(const char* model, const models::Parallelism& p, const StepOptions& options = {})
      : architecture(models::find_model(model)),
        precision(models::choose_precision(architecture, "fp8")),
        parallelism(p),
        timer(architecture, precision, parallelism, times, backend),
        price(timer, p.attention_dp, options) {}
};

const char* const kDense = "meta-llama/Llama-3.1-70B";
const char* const kSparse = "deepseek-ai/DeepSeek-R1";

StepWork decode(double sequences, double context) { return {sequences, sequences * context, {}, 0}; }

std::vector<StepWork> any_work(core::Random& random, int ranks) {
  std::vector<StepWork> work;
  for (int r = 0; r < ranks; ++r)
    work.push_back(decode(static_cast<double>(random.integer(r == 0 ? 1 : 0, 300)), random.uniform() * 20'000));
  return work;
}

void grow(std::vector<StepWork>& work, double growth) {
  for (StepWork& w : work) w.decode_context += w.decodes * growth;
}

}  // namespace

TEST_CASE("steps_until gives the fewest steps that take so long") {
  core::Random random(1);
  for (int i = 0; i < 20'000; ++i) {
    StepLine line{1 + 1000 * random.uniform(), 0, 1000};
    const auto kind = random.integer(0, 2);
    if (kind == 1) line.growth_us = random.uniform();
    if (kind == 2) line.growth_us = -line.first_us * random.uniform() / 200;  // shrinks, but stays positive
    const int64_t most = random.integer(1, 150);
    const double us = random.uniform() * 1.2 * line.total_us(most);
    int64_t want = 1;
    while (want < most && line.total_us(want) < us) ++want;
    REQUIRE(line.steps_until(us, most) == want);
    const int64_t at = random.integer(1, most);
    REQUIRE(line.steps_until(line.total_us(at), most) == at);  // to the bit: a step that ends now is over
  }
}

// The line and each step by itself mix the same nodes in another order: 1e-9 is far above 1e-16 of each.
TEST_CASE("a line is its steps, up to the next point of the table") {
  core::Random random(2);
  for (const auto& [model, p] :
       {std::pair{kDense, models::Parallelism{4, 1, 1, 1, 1}}, std::pair{kSparse, models::Parallelism{1, 1, 8, 1, 8}},
        std::pair{kDense, models::Parallelism{4, 2, 1, 1, 1}}}) {
    StepOptions options;
    options.slowdown = 1.5;
    PriceBed bed(model, p, options);
    for (int i = 0; i < 150; ++i) {
      auto work = any_work(random, p.attention_dp);
      const double growth = i % 3 == 0 ? 2.5 : 1;
      const StepLine line = bed.price.line(work, growth);
      CHECK(line.first_us == bed.price.step_us(work));
      REQUIRE(line.steps >= 1);
      for (int64_t step = 0; step < std::min<int64_t>(line.steps, 400); ++step) {
        const double want = line.first_us + line.growth_us * static_cast<double>(step);
        REQUIRE(std::abs(bed.price.step_us(work) / want - 1) < 1e-9);
        grow(work, growth);
      }
    }
  }
}

// Both ends of a segment are the same node; a context 1e-6 tokens before or after it is 1e-6 of a token's cost away.
TEST_CASE("times are continuous in the context") {
  PriceBed bed(kDense, {4, 1, 1, 1, 1});
  for (const double batch : {1.0, 5.0, 64.0})
    for (const double context : {64.0, 96.0, 128.0, 1024.0, 1536.0, 65'536.0}) {
      const StepWork before = decode(batch, context - 1e-6), after = decode(batch, context + 1e-6);
      CHECK(bed.price.step_us({&before, 1}) == doctest::Approx(bed.price.step_us({&after, 1})).epsilon(1e-9));
    }
}

TEST_CASE("more sequences, context and prompt tokens take no less time") {
  PriceBed bed(kDense, {4, 1, 1, 1, 1});
  const auto us = [&](double sequences, double context, int64_t prompt, int64_t cached) {
    const scheduler::Chunk chunk{0, prompt, cached, true};
    StepWork w = decode(sequences, context);
    if (prompt > 0) w.prompts = {&chunk, 1};
    return bed.price.step_us({&w, 1});
  };
  // Tables of measured or modelled kernels may dip by a per mille where the best tile changes.
  const auto rises = [](double& before, double now) {
    CHECK(now >= before * 0.999);
    before = now;
  };
  double by_sequences = 0, by_context = 0, by_prompt = 0, by_cached = 0;
  for (int i = 1; i <= 512; i += 3) rises(by_sequences, us(i, 2000, 0, 0));
  for (double c = 1; c < 1e5; c *= 1.1) rises(by_context, us(32, c, 0, 0));
  for (double n = 1; n < 30'000; n *= 1.15) rises(by_prompt, us(8, 1000, static_cast<int64_t>(std::ceil(n)), 0));
  for (double n = 1; n < 50'000; n *= 1.2) rises(by_cached, us(0, 0, 1024, static_cast<int64_t>(n)));
  CHECK(us(0, 0, 8192, 0) > us(0, 0, 1024, 0) * 4);
}

TEST_CASE("under attention DP the slowest rank sets the time") {
  PriceBed bed(kSparse, {1, 1, 8, 1, 8});
  std::vector<StepWork> even(8, decode(16, 4000)), uneven = even, lone(8, decode(0, 0));
  uneven[3] = decode(16, 16'000);
  CHECK(bed.price.step_us(uneven) > bed.price.step_us(even));
  std::vector<StepWork> slow(8, decode(16, 16'000));
  CHECK(bed.price.step_us(uneven) == doctest::Approx(bed.price.step_us(slow)).epsilon(1e-12));
  lone[5] = decode(16, 4000);
  CHECK(bed.price.step_us(lone) <= bed.price.step_us(even));
  std::swap(uneven[3], uneven[6]);
  CHECK(bed.price.step_us(uneven) == doctest::Approx(bed.price.step_us(slow)).epsilon(1e-12));
}

TEST_CASE("pipeline stages: a round of decode takes every stage's share in turn") {
  PriceBed one(kDense, {4, 1, 1, 1, 1}), two(kDense, {4, 2, 1, 1, 1});
  const StepWork work = decode(64, 2000), half = decode(32, 2000);
  const double round = two.price.step_us({&work, 1}), whole = one.price.step_us({&half, 1});
  // Each of two rounds' halves runs 32 sequences through half of the layers; embedding, head and sending are on top.
  CHECK(round > 0.95 * whole);
  CHECK(round < 1.3 * whole);
  CHECK(one.price.drain_us({&work, 1}) == 0);
  const scheduler::Chunk chunk{0, 4000, 0, true};
  StepWork prompt{0, 0, {&chunk, 1}, 0};
  // A prompt alone passes two equal stages: the step is one of them, the drain the other.
  CHECK(two.price.drain_us({&prompt, 1}) == doctest::Approx(two.price.step_us({&prompt, 1})));
}

TEST_CASE("swapped KV and slow GPUs cost what they are said to") {
  StepOptions options;
  options.swap_us_per_token = 0.25;
  PriceBed bed(kDense, {4, 1, 1, 1, 1}, options);
  StepWork work = decode(8, 1000);
  const double still = bed.price.step_us({&work, 1});
  work.moved_kv_tokens = 4000;
  CHECK(bed.price.step_us({&work, 1}) == doctest::Approx(still + 1000));
}

TEST_CASE("tables agree with the times they are made of where they have points") {
  PriceBed bed(kDense, {4, 1, 1, 1, 1});
  StepTimer::Scratch scratch;
  for (const int64_t batch : {1, 8, 64})
    for (const int64_t context : {64, 1024, 8192}) {
      const models::BatchPart part{static_cast<double>(batch), 1, context, true, true};
      const StepWork work = decode(static_cast<double>(batch), static_cast<double>(context));
      const double want = bed.timer.parts({&part, 1}, 0, scratch).all() + bed.backend.host_us +
                          bed.backend.host_us_per_sequence * static_cast<double>(batch);
      CHECK(bed.price.step_us({&work, 1}) == doctest::Approx(want).epsilon(1e-9));
    }
}
