#include <doctest/doctest.h>

#include <limits>

#include "core/error.h"
#include "kernels/gemm.h"
#include "tests/effort.h"
#include "tests/kernels_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

// Rounding of one product and sum at every step is at most k * 2^-24 of the sum of magnitudes, which is at most k with
// operands up to 1; twice that covers the products' own rounding under scales. Where bf16 is multiplied in pairs the
// same holds, as two products, exact in fp32, are added with at most two roundings; what it takes for 0 is at most
// 3 k 2^-126 here.
double gemm_tolerance(int64_t k) { return 2 * static_cast<double>(k + 1) * static_cast<double>(k) * 0x1p-24; }

struct Operand {
  Numbers numbers;
  std::vector<float> scales;
  Matrix matrix;

  Operand(core::Random& random, Dtype dtype, Scaling scaling, int64_t rows, int64_t cols, bool weights, int64_t pad)
      : numbers(random_numbers(random, dtype, rows * (cols + pad))) {
    const int64_t blocks = (cols + 127) / 128;
    const int64_t counts[] = {0, 1, rows, (weights ? (rows + 127) / 128 : rows) * blocks};
    scales = random_scales(random, counts[static_cast<int>(scaling)]);
    matrix = {numbers.data(), dtype, rows, cols, cols + pad, scaling == Scaling::none ? nullptr : scales.data(),
              scaling};
    // What lies between the rows is nobody's: NaN.
    for (int64_t r = 0; r < rows; ++r)
      std::memset(numbers.bytes.data() + (r * (cols + pad) + cols) * size_of(dtype), 0xFF, pad * size_of(dtype));
  }
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;
};

struct Format {
  Dtype a, b;
  Scaling a_scaling, b_scaling;
};

const std::vector<Format> kFormats = {{Dtype::fp32, Dtype::fp32, Scaling::none, Scaling::none},
                                      {Dtype::bf16, Dtype::bf16, Scaling::none, Scaling::none},
                                      {Dtype::fp32, Dtype::bf16, Scaling::none, Scaling::none},
                                      {Dtype::fp8, Dtype::fp8, Scaling::tensor, Scaling::tensor},
                                      {Dtype::fp8, Dtype::fp8, Scaling::row, Scaling::row},
                                      {Dtype::fp8, Dtype::fp8, Scaling::block, Scaling::block},
                                      {Dtype::bf16, Dtype::fp8, Scaling::none, Scaling::tensor},
                                      {Dtype::bf16, Dtype::fp8, Scaling::none, Scaling::row},
                                      {Dtype::fp32, Dtype::fp8, Scaling::none, Scaling::block},
                                      {Dtype::bf16, Dtype::fp32, Scaling::none, Scaling::none}};

void check_gemm(core::Random& random, const Format& format, int64_t m, int64_t n, int64_t k, cpu::Threads& threads) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(static_cast<int>(format.a));
  CAPTURE(static_cast<int>(format.b));
  CAPTURE(static_cast<int>(format.b_scaling));
  const int64_t pad = random.integer(0, 5);
  Operand a(random, format.a, format.a_scaling, m, k, false, pad),
      b(random, format.b, format.b_scaling, n, k, true, pad);
  Numbers out(random.integer(0, 1) == 0 ? Dtype::fp32 : Dtype::bf16, m * (n + pad));
  const Gemm op{a.matrix, b.matrix, matrix(out, m, n, n + pad)};
  cpu::gemm(op, threads);
  REQUIRE(mismatch(out, reference::gemm(op), n, gemm_tolerance(k), half_step(out.dtype), n + pad) == "");
}

}  // namespace

TEST_CASE("gemm agrees with the reference on every instruction set, in every format, at odd sizes") {
  cpu::Threads threads(2);
  core::Random random(1);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const Format& format : kFormats) {
      for (const int64_t m : {1, 2, 3, 5, 8, 9, 16, 17, 40}) {
        if (kLighter > 1 && m != 3 && m != 17) continue;
        check_gemm(random, format, m, random.integer(1, 150), random.integer(1, 300), threads);
      }
      check_gemm(random, format, random.integer(1, 30), 1, 1, threads);
    }
  });
}

TEST_CASE("gemm over more rows, panels and depth than one block of each") {
  cpu::Threads threads(2);
  core::Random random(2);
  check_gemm(random, kFormats[1], 530 / kLighter, 200, 40, threads);  // activations are packed 512 rows at a time
  check_gemm(random, kFormats[5], 20, 400 / kLighter, 530, threads);  // panels by 4, depth by 256
  check_gemm(random, kFormats[5], 4, 130, 1000, threads);
}

TEST_CASE("gemm gives the same bits for any number of threads") {
  core::Random random(3);
  for (const int64_t m : {4, 16, 70}) {
    for (const Format& format : {kFormats[1], kFormats[7]}) {
      Operand a(random, format.a, format.a_scaling, m, 300, false, 0),
          b(random, format.b, format.b_scaling, 101, 300, true, 0);
      std::vector<unsigned char> first;
      for (const int count : {1, 2, 3, 5}) {
        cpu::Threads threads(count);
        Numbers out(Dtype::fp32, m * 101);
        cpu::gemm({a.matrix, b.matrix, matrix(out, m, 101)}, threads);
        if (first.empty()) first = out.bytes;
        CHECK(out.bytes == first);
      }
    }
  }
}

TEST_CASE("gemm of bf16 with bf16 at every remainder of depth, rows and columns, on every instruction set") {
  cpu::Threads threads(1);
  core::Random random(7);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    // Depths around one vector of 32 elements, around blocks of 256 and 512, and an odd one at each.
    for (const int64_t k : {1, 2, 3, 31, 32, 33, 63, 65, 255, 257, 511, 512, 513, 1025})
      for (const int64_t m : {7, 16, 17, 25}) check_gemm(random, kFormats[1], m, random.integer(1, 100), k, threads);
    if (kLighter > 1) return;
    for (int64_t m = 1; m <= 34; ++m) check_gemm(random, kFormats[1], m, 49, 2 * m + 1, threads);
    for (int64_t n = 1; n <= 50; ++n) check_gemm(random, kFormats[1], n % 2 == 0 ? 5 : 18, n, 37, threads);
  });
}

TEST_CASE("gemm of bf16 with bf16: numbers of any size, within a bound of each product") {
  constexpr int64_t kMost = 24, kN = 50, kK = 333;
  cpu::Threads threads(2);
  core::Random random(8);
  Operand a(random, Dtype::bf16, Scaling::none, kMost, kK, false, 3),
      b(random, Dtype::bf16, Scaling::none, kN, kK, true, 1);
  // Exponents from 2^-60 to 2^60, so that products neither overflow nor vanish and few of them decide each sum.
  for (Operand* operand : {&a, &b}) {
    auto* words = reinterpret_cast<uint16_t*>(operand->numbers.data());
    for (int64_t i = 0; i < operand->numbers.count(); ++i)
      if (!std::isnan(operand->numbers[i]))
        words[i] = static_cast<uint16_t>((words[i] & 0x807F) | random.integer(127 - 60, 127 + 60) << 7);
  }
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const int64_t m : {int64_t{5}, kMost}) {
      a.matrix.rows = m;
      Numbers out(Dtype::fp32, m * kN);
      cpu::gemm({a.matrix, b.matrix, matrix(out, m, kN)}, threads);
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < kN; ++j) {
          double want = 0, magnitude = 0;
          for (int64_t c = 0; c < kK; ++c) {
            const double product = a.numbers[i * (kK + 3) + c] * b.numbers[j * (kK + 1) + c];
            want += product, magnitude += std::abs(product);
          }
          // k roundings of partial sums, none larger than the sum of magnitudes.
          REQUIRE(std::abs(out[i * kN + j] - want) <= (kK + 1) * 0x1p-24 * magnitude);
        }
      }
    }
  });
}

TEST_CASE("gemm of bf16 with bf16: infinities, NaN and the smallest numbers") {
  // Rows of a: infinity first, NaN first, all 2^-133 (subnormal), all 2^-126. Columns: 2 at even places, 0 at odd ones.
  constexpr int64_t kK = 5;
  cpu::Threads threads(1);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const int64_t m : {4, 20}) {  // dots and tiles
      Numbers a(Dtype::bf16, m * kK), b(Dtype::bf16, kK), out(Dtype::fp32, m);
      auto* x = reinterpret_cast<uint16_t*>(a.data());
      auto* y = reinterpret_cast<uint16_t*>(b.data());
      for (int64_t c = 0; c < kK; ++c) {
        y[c] = c % 2 == 0 ? 0x4000 : 0;
        for (int64_t i = 0; i < m; ++i) x[i * kK + c] = i % 4 == 2 ? 0x0001 : i % 4 == 3 ? 0x0080 : 0x3F80;
      }
      for (int64_t i = 0; i < m; ++i)
        if (i % 4 < 2) x[i * kK] = i % 4 == 0 ? 0x7F80 : 0x7FC0;
      cpu::gemm({matrix(a, m, kK), matrix(b, 1, kK), matrix(out, m, 1)}, threads);
      for (int64_t i = 0; i < m; i += 4) {
        CHECK(out[i] == std::numeric_limits<double>::infinity());
        CHECK(std::isnan(out[i + 1]));
        CHECK(out[i + 2] == (name == "avx512bf16" ? 0 : 6 * 0x1p-133));  // what cpu.h says of subnormals
        CHECK(out[i + 3] == 6 * 0x1p-126);
      }
    }
  });
}

TEST_CASE("gemm: NaN goes through, nothing to do is nothing done, no depth gives zeros") {
  cpu::Threads threads(2);
  core::Random random(4);
  Operand a(random, Dtype::fp32, Scaling::none, 20, 33, false, 0),
      b(random, Dtype::fp8, Scaling::tensor, 50, 33, true, 0);
  for (const int64_t m : {3, 20}) {
    Numbers out(Dtype::fp32, m * 50);
    b.numbers.bytes[7 * 33 + 32] = 0x7F;
    a.matrix.rows = m;
    cpu::gemm({a.matrix, b.matrix, matrix(out, m, 50)}, threads);
    for (int64_t i = 0; i < m * 50; ++i) CHECK(std::isnan(out[i]) == (i % 50 == 7));
  }
  Numbers out(Dtype::bf16, 12);
  a.matrix.rows = 3, b.matrix.rows = 4, a.matrix.cols = b.matrix.cols = 0;
  cpu::gemm({a.matrix, b.matrix, matrix(out, 3, 4)}, threads);
  for (int64_t i = 0; i < 12; ++i) CHECK(out[i] == 0);
  a.matrix.rows = 0;
  CHECK_NOTHROW(cpu::gemm({a.matrix, b.matrix, matrix(out, 0, 4)}, threads));
}

TEST_CASE("gemm refuses operands that do not fit, in one line") {
  cpu::Threads threads(1);
  core::Random random(5);
  Operand a(random, Dtype::fp32, Scaling::none, 3, 8, false, 0), b(random, Dtype::fp32, Scaling::none, 5, 8, true, 0);
  Numbers out(Dtype::fp32, 15), small(Dtype::fp8, 15);
  b.matrix.cols = 7;
  CHECK_THROWS_WITH_AS(cpu::gemm({a.matrix, b.matrix, matrix(out, 3, 5)}, threads),
                       "gemm: a is (m, k), b (n, k) and out (m, n)", core::Error);
  b.matrix.cols = 8;
  CHECK_THROWS_WITH_AS(cpu::gemm({a.matrix, b.matrix, matrix(small, 3, 5)}, threads),
                       "gemm: out has to be fp32 or bf16", core::Error);
  a.matrix.dtype = Dtype::int4;
  CHECK_THROWS_WITH_AS(cpu::gemm({a.matrix, b.matrix, matrix(out, 3, 5)}, threads),
                       "gemm: a has to be fp32, bf16 or fp8", core::Error);
}

TEST_CASE("grouped gemm agrees with the reference, empty groups and long ones included") {
  cpu::Threads threads(2);
  core::Random random(6);
  const std::vector<int32_t> starts = {0, 0, 3, 23, 23, 24, 24};
  for (const Format& format : kFormats) {
    const int64_t groups = 6, n = random.integer(1, 140), k = random.integer(1, 200), rows = 24;
    Operand a(random, format.a, format.a_scaling, rows, k, false, 2),
        b(random, format.b, format.b_scaling, groups * n, k, true, 1);
    Numbers out(Dtype::bf16, rows * n);
    const GroupedGemm op{a.matrix, b.matrix, matrix(out, rows, n), starts.data(), groups};
    cpu::grouped_gemm(op, threads);
    CHECK(mismatch(out, reference::grouped_gemm(op), n, gemm_tolerance(k), half_step(out.dtype)) == "");
  }
}
