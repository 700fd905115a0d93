#include <doctest/doctest.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/block_copy.h"
#include "kernels/element.h"
#include "kernels/small_ops.h"
#include "tests/kernels_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

struct Output {
  Numbers numbers;
  std::vector<float> scales;
  Matrix matrix;

  Output(Dtype dtype, Scaling scaling, int64_t rows, int64_t cols)
      : numbers(dtype, rows * (cols + 3)), scales(static_cast<size_t>(rows * ((cols + 127) / 128)), NAN) {
    matrix = tests::matrix(numbers, rows, cols, cols + 3);
    matrix.scaling = scaling;
    if (dtype == Dtype::fp8) matrix.scales = scales.data();
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  float* out_scales() { return numbers.dtype == Dtype::fp8 ? scales.data() : nullptr; }
};

// Unscaled outputs within half a step of `want`; fp8 ones within half a step of their own scale, and scales as they
// have to be. `error` is what the computation itself may be off by, relative to the largest number.
void check_output(Output& got, const std::vector<double>& want, double error) {
  const Matrix& m = got.matrix;
  if (m.dtype != Dtype::fp8) {
    CHECK(mismatch(got.numbers, want, m.cols, error * 16, half_step(m.dtype) + error, m.stride) == "");
    return;
  }
  const std::vector<double> scales = reference::fresh_scales(want, m.cols, m.scaling);
  int64_t wrong = 0;
  for (size_t i = 0; i < scales.size(); ++i)
    wrong += !(std::abs(got.scales[i] - scales[i]) <= (error + 0x1p-22) * scales[i]);
  CHECK(wrong == 0);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) {
      const double w = want[r * m.cols + c], g = reference::element(m, r, c);
      const double scale = scales[m.scaling == Scaling::row ? r : r * ((m.cols + 127) / 128) + c / 128];
      // Half of the smallest step, 2^-9, or half a step of the number; 448 of them may each be off by `error`.
      wrong += !(std::abs(g - w) <= (0x1p-10 + 448 * error + 1e-4) * scale + 0x1p-4 * std::abs(w));
    }
  }
  CHECK(wrong == 0);
}

struct SmallOpFormat {
  Dtype in, out;
  Scaling scaling;
};
const std::vector<SmallOpFormat> kSmallOpFormats = {{Dtype::fp32, Dtype::fp32, Scaling::none},
                                                    {Dtype::bf16, Dtype::bf16, Scaling::none},
                                                    {Dtype::bf16, Dtype::fp8, Scaling::row},
                                                    {Dtype::bf16, Dtype::fp8, Scaling::block},
                                                    {Dtype::fp32, Dtype::fp8, Scaling::block}};

}  // namespace

TEST_CASE("add and RMSNorm agree with the reference, with and without something to add") {
  core::Random random(31);
  cpu::Threads threads(2);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const SmallOpFormat& format : kSmallOpFormats) {
      for (const int64_t hidden : {1, 7, 128, 300}) {
        for (const bool add : {false, true}) {
          CAPTURE(hidden);
          const int64_t tokens = 5;
          Numbers x = random_numbers(random, format.in, tokens * hidden),
                  weight = random_numbers(random, format.in, hidden);
          Numbers residual = random_numbers(random, format.in, tokens * hidden);
          Output out(format.out, format.scaling, tokens, hidden);
          AddRmsNorm op{{}, matrix(residual, tokens, hidden), weight.data(), out.matrix, out.out_scales(), 1e-5F};
          if (add) op.x = matrix(x, tokens, hidden);
          const reference::Normed want = reference::add_rms_norm(op);
          cpu::add_rms_norm(op, threads);
          CHECK(mismatch(residual, want.residual, hidden, 0, 0) == "");
          // A sum of at most 300 squares in 16 lanes or 4, its root, two products.
          check_output(out, want.out, 96 * 0x1p-24);
        }
      }
    }
  });
}

TEST_CASE("SiLU and product agree with the reference, far from 0 too") {
  core::Random random(32);
  cpu::Threads threads(2);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const SmallOpFormat& format : kSmallOpFormats) {
      for (const int64_t width : {1, 19, 128, 333}) {
        Numbers x = random_numbers(random, format.in, 3 * 2 * width);
        Output out(format.out, format.scaling, 3, width);
        const SiluMul op{matrix(x, 3, 2 * width), out.matrix, out.out_scales()};
        cpu::silu_mul(op, threads);
        check_output(out, reference::silu_mul(op), 8 * 0x1p-24);
      }
    }
    Numbers x(Dtype::fp32, 12), out(Dtype::fp32, 6);
    const float gates[] = {-1000, -88.5F, -20, 20, 100, INFINITY};
    for (int i = 0; i < 6; ++i) static_cast<float*>(x.data())[i] = gates[i], static_cast<float*>(x.data())[6 + i] = 1;
    const SiluMul op{matrix(x, 1, 12), matrix(out, 1, 6), nullptr};
    cpu::silu_mul(op, threads);
    CHECK(out[5] == INFINITY);
    auto want = reference::silu_mul(op);
    for (int i = 0; i < 5; ++i) CHECK(std::abs(out[i] - want[i]) <= 1e-6 * std::abs(want[i]) + 1e-34);
  });
}

TEST_CASE("quantization: fresh scales, zeros and NaN") {
  core::Random random(33);
  cpu::Threads threads(2);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const Scaling scaling : {Scaling::row, Scaling::block}) {
      const int64_t cols = 400;
      Numbers x = random_numbers(random, Dtype::fp32, 4 * cols);
      auto* numbers = static_cast<float*>(x.data());
      std::fill(numbers + cols, numbers + 2 * cols, 0.0F);
      for (int64_t i = 0; i < cols; ++i)
        numbers[2 * cols + i] *= static_cast<float>(std::pow(10.0, random.integer(-20, 20)));
      Output out(Dtype::fp8, scaling, 4, cols);
      const Quantize op{matrix(x, 4, cols), out.matrix, out.out_scales()};
      cpu::quantize(op, threads);
      std::vector<double> want;
      for (int64_t i = 0; i < 4 * cols; ++i) want.push_back(x[i]);
      check_output(out, want, 0);
      CHECK(out.matrix.scales[scaling == Scaling::row ? 1 : 4] == 0);
      numbers[5] = NAN;
      cpu::quantize(op, threads);
      CHECK(std::isnan(reference::element(out.matrix, 0, 5)));
      CHECK(!std::isnan(reference::element(out.matrix, 0, 6)));
    }
  });
}

TEST_CASE("rope rotates q and k in place and appends k and v where they belong") {
  core::Random random(34);
  cpu::Threads threads(2);
  for (const auto& [dtype, cached] :
       {std::pair{Dtype::fp32, Dtype::fp32}, {Dtype::bf16, Dtype::bf16}, {Dtype::bf16, Dtype::fp8}}) {
    const std::vector<int32_t> positions = {0, 131071 % 90, 17, 63, 64}, sequences = {0, 1, 1, 0, 0}, room = {100, 100};
    const int64_t heads = 3, dim = 64, tokens = 5;
    PagedCache cache(random, cached, room, 2, dim, 16);
    std::vector<float> frequencies;
    for (int i = 0; i < dim / 2; ++i) frequencies.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / dim)));
    Numbers qkv = random_numbers(random, dtype, tokens * (heads + 4) * dim);
    const RopeAppend op{qkv.data(),        dtype, cache.kv, tokens, heads, positions.data(), sequences.data(),
                        frequencies.data()};
    const reference::Roped want = reference::rope_append(op);
    const Numbers old_k = cache.k;
    cpu::rope_append(op, threads);
    // Two products of numbers up to 1 and a sum.
    CHECK(mismatch(qkv, want.qkv, dim, 4 * 0x1p-24, half_step(dtype)) == "");
    int64_t wrong = 0, changed = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t block = cache.blocks[sequences[t] * cache.kv.blocks_per_sequence + positions[t] / 16];
      for (int64_t i = 0; i < 2 * dim; ++i) {
        const int64_t slot = (block * 16 + positions[t] % 16) * 2 * dim + i;
        const double steps = half_step(cached) * 1.01, least = 0x1p-10 + 1e-6;
        wrong += !(std::abs(cache.k[slot] * cache.kv.k_scale - want.k[t * 2 * dim + i]) <=
                   steps * std::abs(want.k[t * 2 * dim + i]) + (cached == Dtype::fp8 ? least : 4 * 0x1p-24));
        wrong += !(std::abs(cache.v[slot] * cache.kv.v_scale - want.v[t * 2 * dim + i]) <=
                   steps * std::abs(want.v[t * 2 * dim + i]) + (cached == Dtype::fp8 ? least : 0));
      }
    }
    for (size_t i = 0; i < old_k.bytes.size(); ++i) changed += old_k.bytes[i] != cache.k.bytes[i];
    CHECK(wrong == 0);
    CHECK(changed <= tokens * 2 * dim * size_of(cached));
  }
}

TEST_CASE("rope norms the heads of q and k, and leaves qkv where q goes elsewhere") {
  core::Random random(37);
  cpu::Threads threads(2);
  for (const Dtype dtype : {Dtype::fp32, Dtype::bf16}) {
    const std::vector<int32_t> positions = {3, 0, 40}, sequences = {0, 1, 1}, room = {64, 64};
    const int64_t heads = 4, dim = 64, tokens = 3, width = heads + 4;
    PagedCache cache(random, dtype, room, 2, dim, 16);
    const std::vector<float> frequencies(dim / 2, 0.25F);
    const Numbers qkv = random_numbers(random, dtype, tokens * width * dim);
    Numbers kept = qkv, q(dtype, tokens * heads * dim);
    const Numbers q_norm = random_numbers(random, dtype, dim), k_norm = random_numbers(random, dtype, dim);
    RopeAppend op{kept.data(), dtype, cache.kv, tokens, heads, positions.data(), sequences.data(), frequencies.data()};
    op.q_norm = q_norm.bytes.data(), op.k_norm = k_norm.bytes.data(), op.epsilon = 0.01F, op.q = q.data();
    const reference::Roped want = reference::rope_append(op);
    cpu::rope_append(op, threads);
    CHECK(kept.bytes == qkv.bytes);
    int64_t wrong = 0;
    // Normed numbers stay below the square root of dim, 8, times a weight; a few roundings of fp32, one of the dtype.
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t i = 0; i < heads * dim; ++i)
        wrong += !(std::abs(q[t * heads * dim + i] - want.qkv[t * width * dim + i]) <=
                   half_step(dtype) * 1.01 * std::abs(want.qkv[t * width * dim + i]) + 64 * 0x1p-24);
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t i = 0; i < 2 * dim; ++i) {
        const int64_t block = cache.blocks[sequences[t] * cache.kv.blocks_per_sequence + positions[t] / 16];
        wrong += !(std::abs(cache.k[(block * 16 + positions[t] % 16) * 2 * dim + i] - want.k[t * 2 * dim + i]) <=
                   half_step(dtype) * 1.01 * std::abs(want.k[t * 2 * dim + i]) + 64 * 0x1p-24);
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("embedding: rows, and zeros for what is not in the table") {
  core::Random random(35);
  cpu::Threads threads(2);
  Numbers table = random_numbers(random, Dtype::bf16, 11 * 40), out(Dtype::fp32, 5 * 40);
  const std::vector<int32_t> ids = {10, -1, 0, 11, 3};
  const Embed op{matrix(table, 11, 40), ids.data(), matrix(out, 5, 40)};
  cpu::embed(op, threads);
  CHECK(mismatch(out, reference::embed(op), 40, 0, 0) == "");
  CHECK(out[40] == 0);
}

TEST_CASE("blocks gathered and scattered again are where they were") {
  core::Random random(36);
  cpu::Threads threads(2);
  std::vector<char> pool(10 * 48), buffer(4 * 48), again(10 * 48, 'x');
  for (char& c : pool) c = static_cast<char>(random.integer(0, 90));
  const std::vector<int32_t> blocks = {7, 0, 9, 3};
  cpu::gather_blocks({pool.data(), buffer.data(), blocks.data(), 4, 48}, threads);
  for (int i = 0; i < 4; ++i) CHECK(std::equal(&buffer[i * 48], &buffer[i * 48] + 48, &pool[blocks[i] * 48]));
  cpu::scatter_blocks({again.data(), buffer.data(), blocks.data(), 4, 48}, threads);
  for (int b = 0; b < 10; ++b) {
    const bool moved = std::find(blocks.begin(), blocks.end(), b) != blocks.end();
    for (int i = 0; i < 48; ++i) REQUIRE(again[b * 48 + i] == (moved ? pool[b * 48 + i] : 'x'));
  }
}

TEST_CASE("fp8 outputs without a place for their scales are refused") {
  core::Random random(37);
  cpu::Threads threads(1);
  Numbers x = random_numbers(random, Dtype::fp32, 8);
  Output out(Dtype::fp8, Scaling::row, 1, 8);
  CHECK_THROWS_WITH_AS(cpu::quantize({matrix(x, 1, 8), out.matrix, nullptr}, threads), "quantize: fp8 needs out_scales",
                       core::Error);
  out.matrix.scaling = Scaling::tensor;
  CHECK_THROWS_AS(cpu::quantize({matrix(x, 1, 8), out.matrix, out.scales.data()}, threads), core::Error);
}
