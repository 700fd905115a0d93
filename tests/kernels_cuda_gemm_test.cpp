#include <doctest/doctest.h>

#include <cmath>
#include <tuple>

#include "core/error.h"
#include "kernels/cuda/block_scales.h"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/grouped_gemm_sm90.h"
#include "kernels/cuda/small_gemm.h"
#include "kernels/reference.h"
#include "tests/simt/on_device.h"
#include "tests/simt/random_numbers.h"

namespace drydock::tests {
namespace {

using kernels::Bf16;
using kernels::Fp8;
using kernels::Gemm;
using kernels::Matrix;
using kernels::Scaling;

struct Product {
  int64_t m, n, k;
  Scaling scaling = Scaling::none;  // none: bf16
};

// Products of k random numbers between -1 and 1 (fp8: -448 and 448, scales about 1/448) sum to about sqrt(k) / 3; fp32
// sums are off by at most k * 2^-24 of the magnitudes' sum (below k / 2), fp8 products on a GPU by 2^-13 of it.
double tolerance(const Product& shape, double want) {
  const double accumulation = shape.scaling == Scaling::none ? 0x1p-24 * static_cast<double>(shape.k) : 0x1p-13;
  return std::abs(want) / 256 + accumulation * static_cast<double>(shape.k) / 2 + 1e-6;
}

int64_t weight_scales(Scaling scaling, int64_t n, int64_t k) {
  return scaling == Scaling::block ? (n + 127) / 128 * ((k + 127) / 128) : scaling == Scaling::row ? n : 1;
}

std::vector<float> random_scales(int64_t count, uint32_t seed) {
  std::vector<float> out = random_floats(count, seed);
  for (float& x : out) x = (1 + x / 2) / 448;
  return out;
}

template <typename T>
void test_small(const Product& shape, std::vector<T> a, std::vector<T> b) {
  const auto [m, n, k, scaling] = shape;
  std::vector<float> a_scales = random_scales(scales_of(scaling, m, k), 21),
                     b_scales = random_scales(weight_scales(scaling, n, k), 22);
  Gemm op{scaled_matrix(a.data(), m, k, a_scales.data(), scaling),
          scaled_matrix(b.data(), n, k, b_scales.data(), scaling),
          {}};
  op.out = matrix(a_scales.data(), m, n);
  const std::vector<double> want = kernels::reference::gemm(op);
  OnDevice<T> device_a(a), device_b(b);
  OnDevice<float> device_a_scales(a_scales), device_b_scales(b_scales), out(static_cast<size_t>(m * n));
  OnDevice<Bf16> rounded(static_cast<size_t>(m * n));
  OnDevice<uint32_t> counters(static_cast<size_t>(kernels::cuda::kCounters));
  op = {scaled_matrix(device_a.data(), m, k, device_a_scales.data(), scaling),
        scaled_matrix(device_b.data(), n, k, device_b_scales.data(), scaling), matrix(out.data(), m, n)};
  const size_t bytes = kernels::cuda::small_gemm_workspace_bytes(op);
  OnDevice<float> partials(bytes / sizeof(float) + 1);
  const kernels::cuda::Workspace workspace{counters.data(), partials.data(), bytes};
  kernels::cuda::small_gemm(op, workspace, nullptr);
  op.out = matrix(rounded.data(), m, n);
  kernels::cuda::small_gemm(op, workspace, nullptr);  // again: the counters were left at zero
  const std::vector<float> got = out.read();
  const std::vector<Bf16> got_rounded = rounded.read();
  for (size_t i = 0; i < want.size(); ++i) {
    REQUIRE(std::abs(got[i] - want[i]) <= tolerance(shape, want[i]));
    REQUIRE(kernels::to_float(got_rounded[i]) == kernels::to_float(kernels::to_bf16(got[i])));
  }
}

TEST_CASE("small_gemm agrees with the reference in bf16") {
  in_every_order([] {
    for (const Product& shape :
         {Product{1, 16, 8}, {1, 40, 256}, {3, 17, 1032}, {8, 32, 512}, {16, 64, 2048}, {9, 16, 9000}})
      test_small(shape, random_bf16(shape.m * shape.k, 1), random_bf16(shape.n * shape.k, 2));
  });
}

TEST_CASE("small_gemm agrees with the reference in fp8, by tensor, row and block") {
  in_every_order([] {
    for (const Scaling scaling : {Scaling::tensor, Scaling::row, Scaling::block})
      for (const Product& shape :
           {Product{1, 16, 16, scaling}, {5, 140, 400, scaling}, {16, 48, 4096, scaling}, {2, 16, 8208, scaling}})
        test_small(shape, random_fp8(shape.m * shape.k, 3), random_fp8(shape.n * shape.k, 4));
  });
}

TEST_CASE("small_gemm splits k until every multiprocessor has two blocks") {
  // 4096 rows: 256 tiles for 132 multiprocessors are nearly two; 512 rows: 32 tiles, 264 / 32 rounded up is 9, at most
  // 8, and at least 2 KiB of k for each, so 4 of a row of 8 KiB.
  CHECK(kernels::cuda::small_gemm_splits(4096, 8192, 132) == 2);
  CHECK(kernels::cuda::small_gemm_splits(8192, 16384, 132) == 1);
  CHECK(kernels::cuda::small_gemm_splits(512, 8192, 132) == 4);
  CHECK(kernels::cuda::small_gemm_splits(512, 65536, 132) == 8);
  CHECK(kernels::cuda::small_gemm_splits(16, 100, 132) == 1);
}

TEST_CASE("small_gemm refuses what it cannot do") {
  std::vector<Bf16> numbers(17 * 64);
  std::vector<float> out(17 * 64);
  const auto product = [&](int64_t m, int64_t k) {
    return Gemm{matrix(numbers.data(), m, k), matrix(numbers.data(), 1, k), matrix(out.data(), m, 1)};
  };
  CHECK(kernels::cuda::fits_small_gemm(product(16, 64)));
  CHECK_FALSE(kernels::cuda::fits_small_gemm(product(17, 64)));
  CHECK_FALSE(kernels::cuda::fits_small_gemm(product(1, 12)));
  CHECK_THROWS_AS(kernels::cuda::small_gemm(product(17, 64), {}, nullptr), core::Error);
}

struct Groups {
  std::vector<int32_t> starts;
  int64_t n, k;
  Scaling scaling = Scaling::none;
};

// By mma.sync, or by wgmma and TMA where the GPU has them.
using GroupedPath = void (*)(const kernels::GroupedGemm&, kernels::cuda::Stream);

template <typename T>
void test_grouped(const Groups& shape, std::vector<T> (*numbers)(int64_t, uint32_t)) {
  const int64_t rows = shape.starts.back() + 3, groups = static_cast<int64_t>(shape.starts.size()) - 1;
  const auto [n, k, scaling] = std::tuple(shape.n, shape.k, shape.scaling);
  std::vector<T> a = numbers(rows * k, 5), b = numbers(groups * n * k, 6);
  std::vector<float> a_scales = random_scales(scales_of(scaling, rows, k), 23);
  std::vector<float> b_scales = random_scales(weight_scales(scaling, groups * n, k), 24);
  kernels::GroupedGemm op{scaled_matrix(a.data(), rows, k, a_scales.data(), scaling),
                          scaled_matrix(b.data(), groups * n, k, b_scales.data(), scaling),
                          matrix(a_scales.data(), rows, n), shape.starts.data(), groups};
  const std::vector<double> want = kernels::reference::grouped_gemm(op);
  OnDevice<T> device_a(a), device_b(b);
  OnDevice<float> device_a_scales(a_scales), device_b_scales(b_scales);
  OnDevice<int32_t> starts(shape.starts);
  op = {scaled_matrix(device_a.data(), rows, k, device_a_scales.data(), scaling),
        scaled_matrix(device_b.data(), groups * n, k, device_b_scales.data(), scaling),
        {},
        starts.data(),
        groups};
  for (const GroupedPath run : {kernels::cuda::grouped_gemm, kernels::cuda::grouped_gemm_sm90}) {
    OnDevice<float> out(std::vector<float>(static_cast<size_t>(rows * n), 7));
    OnDevice<Bf16> rounded(static_cast<size_t>(rows * n));
    op.out = matrix(out.data(), rows, n);
    if (run == kernels::cuda::grouped_gemm_sm90 && !kernels::cuda::can_group_sm90(op)) continue;
    run(op, nullptr);
    op.out = matrix(rounded.data(), rows, n);
    run(op, nullptr);
    const std::vector<float> got = out.read();
    const std::vector<Bf16> got_rounded = rounded.read();
    for (int64_t i = 0; i < rows * n; ++i) {
      const auto at = static_cast<size_t>(i);
      if (i / n >= shape.starts.back()) {
        REQUIRE(got[at] == 7);  // rows of no group are left alone
        continue;
      }
      REQUIRE(std::abs(got[at] - want[at]) <= tolerance({1, n, k, scaling}, want[at]));
      REQUIRE(got_rounded[at].bits == kernels::to_bf16(got[at]).bits);
    }
  }
}

std::vector<Bf16> numbers_bf16(int64_t count, uint32_t seed) { return random_bf16(count, seed); }
std::vector<Fp8> numbers_fp8(int64_t count, uint32_t seed) { return random_fp8(count, seed); }

// One with tiles of 16 rows, of 64 and of 128; empty groups; n and k that are no multiples of a tile.
const std::vector<Groups> kGroups = {
    {{0, 0, 3, 20, 20}, 72, 144},
    {{0, 40, 150}, 136, 80},
    {{0, 140}, 131, 208},
    {{0, 0}, 16, 16},
    {{0, 1}, 200, 1040},
#ifndef DRYDOCK_SIMT_EMULATOR
    {{0, 70, 330, 331}, 384, 1424},  // several tiles and turns of the stages of wgmma, n of whole blocks of scales
#endif
};

TEST_CASE("grouped_gemm agrees with the reference in bf16") {
  in_every_order([] {
    for (const Groups& groups : kGroups) test_grouped<Bf16>(groups, numbers_bf16);
  });
}

TEST_CASE("grouped_gemm agrees with the reference in fp8, by tensor, row and block") {
  in_every_order([] {
    for (const Scaling scaling : {Scaling::tensor, Scaling::row, Scaling::block})
      for (Groups groups : kGroups) {
        groups.scaling = scaling;
        test_grouped<Fp8>(groups, numbers_fp8);
      }
  });
}

TEST_CASE("tiled_gemm is one group of all rows") {
  std::vector<Bf16> a = random_bf16(70 * 64, 7), b = random_bf16(24 * 64, 8);
  OnDevice<Bf16> device_a(a), device_b(b);
  OnDevice<float> out(size_t{70 * 24});
  const std::vector<double> want =
      kernels::reference::gemm({matrix(a.data(), 70, 64), matrix(b.data(), 24, 64), matrix(out.data(), 70, 24)});
  kernels::cuda::tiled_gemm(
      {matrix(device_a.data(), 70, 64), matrix(device_b.data(), 24, 64), matrix(out.data(), 70, 24)}, nullptr);
  const std::vector<float> got = out.read();
  for (size_t i = 0; i < want.size(); ++i) REQUIRE(std::abs(got[i] - want[i]) <= tolerance({70, 24, 64}, want[i]));
}

TEST_CASE("block scales are turned and padded for cuBLASLt") {
  const std::vector<float> scales = random_floats(7 * 3, 25);
  OnDevice<float> from(scales), turned(size_t{3 * 7}), padded(size_t{7 * 4});
  kernels::cuda::transpose_scales(from.data(), turned.data(), 7, 3, 7, nullptr);
  kernels::cuda::pad_scales(from.data(), padded.data(), 7, 3, 4, nullptr);
  const std::vector<float> got_turned = turned.read(), got_padded = padded.read();
  for (size_t r = 0; r < 7; ++r) {
    for (size_t c = 0; c < 3; ++c) {
      CHECK(got_turned[c * 7 + r] == scales[r * 3 + c]);
      CHECK(got_padded[r * 4 + c] == scales[r * 3 + c]);
    }
    CHECK(got_padded[r * 4 + 3] == 0);
  }
}

TEST_CASE("grouped_gemm takes small tiles for few rows of an expert") {
  CHECK(kernels::cuda::grouped_gemm_tile(64, 128) == 16);
  CHECK(kernels::cuda::grouped_gemm_tile(4096, 128) == 64);
  CHECK(kernels::cuda::grouped_gemm_tile(8192, 8) == 128);
}

}  // namespace
}  // namespace drydock::tests
