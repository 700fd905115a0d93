#include <doctest/doctest.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/philox.h"
#include "kernels/sampling.h"
#include "tests/effort.h"
#include "tests/kernels_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

// Rows of one vocabulary, with every parameter of its own.
struct Sampling {
  Numbers logits;
  std::vector<float> temperatures, top_p;
  std::vector<int32_t> top_k, tokens;
  std::vector<uint64_t> seeds, counters;
  Sample op;

  Sampling(core::Random& random, int64_t rows, int64_t vocabulary)
      : logits(random_numbers(random, Dtype::fp32, rows * vocabulary)),
        temperatures(rows, 1),
        top_p(rows, 1),
        top_k(rows, 0),
        tokens(rows, -1),
        seeds(rows, 99),
        counters(rows) {
    for (int64_t r = 0; r < rows; ++r) counters[r] = static_cast<uint64_t>(r);
    op = {matrix(logits, rows, vocabulary),
          temperatures.data(),
          top_k.data(),
          top_p.data(),
          seeds.data(),
          counters.data(),
          tokens.data()};
  }
  Sampling(const Sampling&) = delete;
  Sampling& operator=(const Sampling&) = delete;
  float* row(int64_t r) { return static_cast<float*>(logits.data()) + r * op.logits.cols; }
};

// The token drawn is the reference's, or one that rounding may give in its place: its interval of the distribution,
// widened by 10^-4 on both sides, holds the uniform number.
bool is_fair(const Sample& op, int64_t row) {
  const std::vector<double> chances = reference::chances(op, row);
  const double u = philox_uniform(op.seeds[row], op.counters[row]);
  const int32_t token = op.tokens[row];
  if (token < 0 || token >= op.logits.cols) return false;
  double below = 0;
  for (int32_t i = 0; i < token; ++i) below += chances[i];
  return chances[token] > 0 && u >= below - 1e-4 && u <= below + chances[token] + 1e-4;
}

// Pearson's statistic of `draws` of one row over consecutive counters.
double chi_square(Sampling& s, int64_t draws, int64_t* members) {
  cpu::Threads threads(2);
  std::vector<int64_t> seen(static_cast<size_t>(s.op.logits.cols));
  const int64_t rows = s.op.logits.rows;
  for (int64_t done = 0; done < draws; done += rows) {
    cpu::sample(s.op, threads);
    for (int64_t r = 0; r < rows; ++r) ++seen[s.tokens[r]], s.counters[r] += static_cast<uint64_t>(rows);
  }
  const std::vector<double> chances = reference::chances(s.op, 0);
  double statistic = 0;
  *members = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    const double expected = chances[i] * static_cast<double>(draws);
    if (expected == 0) {
      CHECK(seen[i] == 0);
      continue;
    }
    ++*members;
    statistic += (static_cast<double>(seen[i]) - expected) * (static_cast<double>(seen[i]) - expected) / expected;
  }
  return statistic;
}

}  // namespace

TEST_CASE("Philox 4x32-10 gives the published known answers") {
  // kat_vectors of Random123 1.14 (D. E. Shaw Research): counter, key, result.
  const auto check = [](PhiloxBlock counter, uint32_t key0, uint32_t key1, PhiloxBlock want) {
    const PhiloxBlock got = philox(counter, key0, key1);
    for (int i = 0; i < 4; ++i) CHECK(got.word[i] == want.word[i]);
  };
  check({{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  constexpr uint32_t kOnes = 0xffffffff;
  check({{kOnes, kOnes, kOnes, kOnes}}, kOnes, kOnes, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  check({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0,
        {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
  CHECK(philox_uniform(0, 0) == static_cast<float>(0x6627e8) * 0x1p-24F);
  CHECK(philox_uniform(1ull << 32, 5) != philox_uniform(0, 5));
  CHECK(philox_uniform(1, 1ull << 32) != philox_uniform(1, 0));
}

TEST_CASE("temperature 0 takes the largest logit, the first of equals, and never NaN") {
  core::Random random(41);
  cpu::Threads threads(2);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    Sampling s(random, 4, 1000);
    std::fill(s.temperatures.begin(), s.temperatures.end(), 0.0F);
    s.row(1)[700] = s.row(1)[300] = 2;
    s.row(2)[0] = NAN, s.row(2)[999] = 5;
    std::fill(s.row(3), s.row(3) + 1000, NAN);
    cpu::sample(s.op, threads);
    CHECK(s.tokens[1] == 300);
    CHECK(s.tokens[2] == 999);
    CHECK(s.tokens[3] == 0);
    CHECK(s.tokens == reference::sample(s.op));
  });
}

TEST_CASE("draws are the reference's for every temperature, top-k and top-p") {
  core::Random random(42);
  cpu::Threads threads(3);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const int64_t vocabulary : {1, 2, 17, 1000}) {
      const int64_t rows = 60 / kLighter;
      Sampling s(random, rows, vocabulary);
      for (int64_t r = 0; r < rows; ++r) {
        s.temperatures[r] = static_cast<float>(random.integer(0, 4)) * 0.3F;
        s.top_k[r] = static_cast<int32_t>(random.integer(0, 1) * random.integer(1, vocabulary + 3));
        s.top_p[r] = random.integer(0, 1) == 0 ? 1 : static_cast<float>(0.01 + 0.98 * random.uniform());
        s.seeds[r] = random.next();
        // Equal logits make edges that only the order of indices decides.
        if (r % 3 == 0)
          for (int64_t i = 0; i < vocabulary; ++i) s.row(r)[i] = std::round(4 * s.row(r)[i]) / 4;
        if (r % 5 == 0 && vocabulary > 1) s.row(r)[1] = NAN;
      }
      cpu::sample(s.op, threads);
      for (int64_t r = 0; r < rows; ++r) {
        CAPTURE(r);
        CAPTURE(vocabulary);
        REQUIRE(is_fair(s.op, r));
      }
    }
  });
}

TEST_CASE("top-k and top-p keep exactly the set that they say, ties by index") {
  core::Random random(43);
  Sampling s(random, 1, 6);
  const float logits[] = {1, 3, 2, 3, 2, 2};
  std::copy(logits, logits + 6, s.row(0));
  const auto drawn = [&] {
    cpu::Threads threads(1);
    std::vector<int32_t> seen;
    for (s.counters[0] = 0; s.counters[0] < 300; ++s.counters[0]) {
      cpu::sample(s.op, threads);
      seen.push_back(s.tokens[0]);
    }
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    return seen;
  };
  s.top_k[0] = 4;
  CHECK(drawn() == std::vector<int32_t>{1, 2, 3, 4});
  s.top_k[0] = 1;
  CHECK(drawn() == std::vector<int32_t>{1});
  // e^3, e^3, e^2, e^2, e^2, e^1 of their sum 65.06: 0.309, 0.309, 0.114 three times, 0.042.
  s.top_k[0] = 0, s.top_p[0] = 0.6F;
  CHECK(drawn() == std::vector<int32_t>{1, 3});
  s.top_p[0] = 0.65F;
  CHECK(drawn() == std::vector<int32_t>{1, 2, 3});
  s.top_p[0] = 0.1F;
  CHECK(drawn() == std::vector<int32_t>{1});
  // Of the top 3, 0.422, 0.422 and 0.155: top-p counts within the top k.
  s.top_k[0] = 3, s.top_p[0] = 0.8F;
  CHECK(drawn() == std::vector<int32_t>{1, 3});
}

TEST_CASE("draws follow the distribution") {
  core::Random random(44);
  Sampling s(random, 100, 12);
  for (int64_t r = 1; r < 100; ++r) std::copy(s.row(0), s.row(0) + 12, s.row(r));
  const int64_t draws = 20000 / kLighter;
  int64_t members = 0;
  // Fewer than one in 10 000 of chi-square numbers with 11 degrees of freedom is above 37.4, with 5 above 25.7.
  CHECK(chi_square(s, draws, &members) < 37.4);
  CHECK(members == 12);
  std::fill(s.temperatures.begin(), s.temperatures.end(), 0.7F);
  std::fill(s.top_k.begin(), s.top_k.end(), 6);
  CHECK(chi_square(s, draws, &members) < 25.7);
  CHECK(members == 6);
}

TEST_CASE("parameters out of range are an error in one line, from a worker too") {
  core::Random random(45);
  cpu::Threads threads(2);
  Sampling s(random, 2, 5);
  s.top_p[1] = 0;
  CHECK_THROWS_WITH_AS(cpu::sample(s.op, threads), "sample: temperature and top_k have to be 0 or more, top_p above 0",
                       core::Error);
}
