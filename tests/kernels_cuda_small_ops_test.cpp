#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "kernels/cuda/small_ops.h"
#include "kernels/reference.h"
#include "tests/simt/on_device.h"
#include "tests/simt/random_numbers.h"

namespace drydock::tests {
namespace {

using core::Dtype;
using kernels::Bf16;
using kernels::Fp8;
using kernels::Matrix;
using kernels::Scaling;

// bf16 keeps 8 bits: to within 2^-8 of the number when rounded (half a step is 2^-9), with as much again for the fp32
// sums and the approximate exp, reciprocal and sine (2^-20 and less).
void check_bf16(const std::vector<Bf16>& got, const std::vector<double>& want, int64_t stride, int64_t cols) {
  for (size_t i = 0; i < want.size(); ++i) {
    const auto at = static_cast<size_t>(static_cast<int64_t>(i) / cols * stride + static_cast<int64_t>(i) % cols);
    REQUIRE(std::abs(kernels::to_float(got[at]) - want[i]) <= std::abs(want[i]) / 256 + 1e-5);
  }
}

// e4m3 keeps 4 bits: a number is rounded to within 2^-4 of itself, or half of the smallest step, 2^-10 of the scale.
void check_fp8(const std::vector<Fp8>& got, const std::vector<float>& scales, const std::vector<double>& want,
               int64_t cols, Scaling scaling) {
  const std::vector<double> fresh = kernels::reference::fresh_scales(want, cols, scaling);
  REQUIRE(fresh.size() == scales.size());
  for (size_t i = 0; i < fresh.size(); ++i) REQUIRE(std::abs(scales[i] - fresh[i]) <= fresh[i] * 1e-5 + 1e-12);
  const int64_t blocks = (cols + 127) / 128;
  for (int64_t i = 0; i < static_cast<int64_t>(want.size()); ++i) {
    const int64_t at = scaling == Scaling::row ? i / cols : i / cols * blocks + i % cols / 128;
    const double scale = fresh[static_cast<size_t>(at)];
    const double number = kernels::to_float(got[static_cast<size_t>(i)]) * scale;
    const double exact = want[static_cast<size_t>(i)];
    REQUIRE(std::abs(number - exact) <= std::abs(exact) / 15 + scale * 0x1p-9);
  }
}

struct Shape {
  int64_t rows, cols;
};
const std::vector<Shape> kShapes = {{1, 8}, {3, 256}, {2, 1000}, {2, 131}, {1, 9000}, {1, 17000}};

void test_norm(Shape shape, bool adds, Scaling scaling) {
  const auto [rows, cols] = shape;
  std::vector<Bf16> x = random_bf16(rows * cols, 1), residual = random_bf16(rows * cols, 2),
                    weight = random_bf16(cols, 3);
  kernels::AddRmsNorm op{.x = matrix(adds ? x.data() : nullptr, rows, cols),
                         .residual = matrix(residual.data(), rows, cols),
                         .weight = weight.data(),
                         .out = matrix(residual.data(), rows, cols)};
  const kernels::reference::Normed want = kernels::reference::add_rms_norm(op);
  OnDevice<Bf16> device_x(x), device_residual(residual), device_weight(weight), plain(static_cast<size_t>(rows * cols));
  OnDevice<Fp8> quantized(static_cast<size_t>(rows * cols));
  OnDevice<float> scales(static_cast<size_t>(scales_of(scaling, rows, cols)));
  op.x.data = adds ? device_x.data() : nullptr;
  op.residual.data = device_residual.data();
  op.weight = device_weight.data();
  op.out = matrix(plain.data(), rows, cols);
  if (scaling != Scaling::none) {
    op.out = scaled_matrix(quantized.data(), rows, cols, scales.data(), scaling);
    op.out_scales = scales.data();
  }
  kernels::cuda::add_rms_norm(op, nullptr);
  check_bf16(device_residual.read(), want.residual, cols, cols);
  if (scaling == Scaling::none) return check_bf16(plain.read(), want.out, cols, cols);
  check_fp8(quantized.read(), scales.read(), want.out, cols, scaling);
}

TEST_CASE("add_rms_norm agrees with the reference") {
  in_every_order([] {
    for (const Shape shape : kShapes)
      for (const Scaling scaling : {Scaling::none, Scaling::row, Scaling::block}) {
        CAPTURE(shape.cols);
        test_norm(shape, shape.rows != 3, scaling);
      }
  });
}

void test_silu(Shape shape, Scaling scaling) {
  const auto [rows, cols] = shape;
  std::vector<Bf16> x = random_bf16(rows * 2 * cols, 4, 20);
  kernels::SiluMul op{.x = matrix(x.data(), rows, 2 * cols), .out = matrix(x.data(), rows, cols)};
  const std::vector<double> want = kernels::reference::silu_mul(op);
  OnDevice<Bf16> device_x(x), plain(static_cast<size_t>(rows * cols));
  OnDevice<Fp8> quantized(static_cast<size_t>(rows * cols));
  OnDevice<float> scales(static_cast<size_t>(scales_of(scaling, rows, cols)));
  op.x.data = device_x.data();
  op.out = matrix(plain.data(), rows, cols);
  if (scaling != Scaling::none) {
    op.out = scaled_matrix(quantized.data(), rows, cols, scales.data(), scaling);
    op.out_scales = scales.data();
  }
  kernels::cuda::silu_mul(op, nullptr);
  if (scaling == Scaling::none) return check_bf16(plain.read(), want, cols, cols);
  check_fp8(quantized.read(), scales.read(), want, cols, scaling);
}

TEST_CASE("silu_mul agrees with the reference") {
  in_every_order([] {
    for (const Shape shape : kShapes)
      for (const Scaling scaling : {Scaling::none, Scaling::row, Scaling::block}) test_silu(shape, scaling);
  });
}

template <typename T>
void test_quantize(const std::vector<T>& x, Shape shape, Scaling scaling) {
  std::vector<double> want;
  for (const T value : x) want.push_back(kernels::to_float(value));
  OnDevice<T> device_x(x);
  OnDevice<Fp8> out(x.size());
  OnDevice<float> scales(static_cast<size_t>(scales_of(scaling, shape.rows, shape.cols)));
  kernels::cuda::quantize({matrix(device_x.data(), shape.rows, shape.cols),
                           scaled_matrix(out.data(), shape.rows, shape.cols, scales.data(), scaling), scales.data()},
                          nullptr);
  check_fp8(out.read(), scales.read(), want, shape.cols, scaling);
}

TEST_CASE("quantize agrees with the reference") {
  in_every_order([] {
    for (const Shape shape : kShapes)
      for (const Scaling scaling : {Scaling::row, Scaling::block}) {
        test_quantize(random_floats(shape.rows * shape.cols, 5), shape, scaling);
        test_quantize(random_bf16(shape.rows * shape.cols, 6, 100), shape, scaling);
      }
    test_quantize(std::vector<float>(512), {2, 256}, Scaling::row);  // zeros stay zeros, by a scale of 0
  });
}

struct RopeCase {
  int64_t heads, kv_heads, head_dim, block_tokens;
  bool fp8, normed = false;  // normed: and q goes to memory of its own
};

void test_rope(const RopeCase& at) {
  const std::vector<int32_t> positions = {5, 0, 17, 31}, sequences = {0, 1, 1, 0}, blocks = {3, 1, 0, 2, 5, 4, 6, 7};
  const int64_t tokens = 4, row = (at.heads + 2 * at.kv_heads) * at.head_dim, token_row = at.kv_heads * at.head_dim;
  std::vector<Bf16> qkv = random_bf16(tokens * row, 7);
  std::vector<float> frequencies;
  for (int64_t i = 0; i < at.head_dim / 2; ++i)
    frequencies.push_back(std::pow(10000.0F, -2.0F * static_cast<float>(i) / static_cast<float>(at.head_dim)));
  kernels::RopeAppend op{.qkv = qkv.data(),
                         .kv = {},
                         .tokens = tokens,
                         .heads = at.heads,
                         .positions = positions.data(),
                         .sequences = sequences.data(),
                         .inverse_frequencies = frequencies.data()};
  op.kv = {.dtype = at.fp8 ? Dtype::fp8 : Dtype::bf16,
           .kv_heads = at.kv_heads,
           .head_dim = at.head_dim,
           .block_tokens = at.block_tokens,
           .blocks = blocks.data(),
           .blocks_per_sequence = 4};
  if (at.fp8) op.kv.k_scale = op.kv.v_scale = 0.01F;
  const std::vector<Bf16> q_norm = random_bf16(at.head_dim, 8), k_norm = random_bf16(at.head_dim, 9);
  if (at.normed) op.q_norm = q_norm.data(), op.k_norm = k_norm.data();
  const kernels::reference::Roped want = kernels::reference::rope_append(op);

  const auto elements = static_cast<size_t>(8 * at.block_tokens * token_row);
  OnDevice<Bf16> device_qkv(qkv), k(elements), v(elements);
  OnDevice<Fp8> k8(elements), v8(elements);
  OnDevice<int32_t> device_positions(positions), device_sequences(sequences), device_blocks(blocks);
  OnDevice<float> device_frequencies(frequencies);
  op.qkv = device_qkv.data();
  op.positions = device_positions.data();
  op.sequences = device_sequences.data();
  op.inverse_frequencies = device_frequencies.data();
  op.kv.blocks = device_blocks.data();
  op.kv.k = at.fp8 ? static_cast<void*>(k8.data()) : k.data();
  op.kv.v = at.fp8 ? static_cast<void*>(v8.data()) : v.data();
  const int64_t q_row = at.heads * at.head_dim;
  OnDevice<Bf16> device_q_norm(q_norm), device_k_norm(k_norm), device_q(static_cast<size_t>(tokens * q_row));
  if (at.normed) op.q_norm = device_q_norm.data(), op.k_norm = device_k_norm.data(), op.q = device_q.data();
  kernels::cuda::rope_append(op, nullptr);

  if (at.normed) {
    std::vector<double> want_q;
    for (int64_t t = 0; t < tokens; ++t)
      want_q.insert(want_q.end(), want.qkv.begin() + t * row, want.qkv.begin() + t * row + q_row);
    check_bf16(device_q.read(), want_q, q_row, q_row);
    const std::vector<Bf16> same = device_qkv.read();
    for (size_t i = 0; i < qkv.size(); ++i) REQUIRE(kernels::to_float(same[i]) == kernels::to_float(qkv[i]));
  } else {
    check_bf16(device_qkv.read(), want.qkv, row, row);
  }
  const std::vector<Bf16> got_k = k.read(), got_v = v.read();
  const std::vector<Fp8> got_k8 = k8.read(), got_v8 = v8.read();
  for (int64_t i = 0; i < tokens * token_row; ++i) {
    const auto token = static_cast<size_t>(i / token_row);
    const int64_t block = blocks[static_cast<size_t>(sequences[token] * 4 + positions[token] / at.block_tokens)];
    const auto cached =
        static_cast<size_t>((block * at.block_tokens + positions[token] % at.block_tokens) * token_row + i % token_row);
    const double want_k = want.k[static_cast<size_t>(i)], want_v = want.v[static_cast<size_t>(i)];
    const double has_k = at.fp8 ? kernels::to_float(got_k8[cached]) * 0.01 : kernels::to_float(got_k[cached]);
    const double has_v = at.fp8 ? kernels::to_float(got_v8[cached]) * 0.01 : kernels::to_float(got_v[cached]);
    const double relative = at.fp8 ? 1.0 / 15 : 1.0 / 256;
    REQUIRE(std::abs(has_k - want_k) <= std::abs(want_k) * relative + (at.fp8 ? 0.01 * 0x1p-9 : 1e-5));
    REQUIRE(std::abs(has_v - want_v) <= std::abs(want_v) * relative + (at.fp8 ? 0.01 * 0x1p-9 : 1e-5));
  }
}

TEST_CASE("rope_append rotates and caches") {
  in_every_order([] {
    test_rope({4, 2, 64, 16, false});
    test_rope({8, 1, 128, 8, true});
    test_rope({3, 3, 256, 32, false});
    test_rope({5, 1, 64, 16, false, true});
    test_rope({4, 2, 128, 16, true, true});
  });
}

TEST_CASE("rope_append is exact far into a long context") {
  // One head of one pair per frequency 1, at position 10^6 + 3: cos and sin to 2^-8.
  std::vector<Bf16> qkv(48);
  for (int64_t i = 0; i < 8; ++i) qkv[static_cast<size_t>(i)] = kernels::to_bf16(1);
  OnDevice<Bf16> device_qkv(qkv), k(256), v(256);
  OnDevice<int32_t> positions(std::vector<int32_t>{1'000'003}), sequences(std::vector<int32_t>{0});
  OnDevice<int32_t> blocks(std::vector<int32_t>(62'501));  // all tokens of a place in block 0
  OnDevice<float> frequencies(std::vector<float>(8, 0.7F));
  kernels::RopeAppend op{.qkv = device_qkv.data(),
                         .kv = {},
                         .tokens = 1,
                         .heads = 1,
                         .positions = positions.data(),
                         .sequences = sequences.data(),
                         .inverse_frequencies = frequencies.data()};
  op.kv = {.k = k.data(),
           .v = v.data(),
           .kv_heads = 1,
           .head_dim = 16,
           .block_tokens = 16,
           .blocks = blocks.data(),
           .blocks_per_sequence = 62'501};
  kernels::cuda::rope_append(op, nullptr);
  const double angle = 1'000'003.0 * double{0.7F};
  CHECK(kernels::to_float(device_qkv.read()[0]) == doctest::Approx(std::cos(angle)).epsilon(1.0 / 256));
  CHECK(kernels::to_float(device_qkv.read()[8]) == doctest::Approx(std::sin(angle)).epsilon(1.0 / 256));
}

TEST_CASE("embed copies rows, zeros for an id out of range") {
  for (const int64_t hidden : {64, 2056, 13}) {
    std::vector<Bf16> table = random_bf16(5 * hidden, 8);
    std::vector<int32_t> ids = {4, 0, -1, 5, 2};
    const std::vector<double> want =
        kernels::reference::embed({matrix(table.data(), 5, hidden), ids.data(), matrix(table.data(), 5, hidden)});
    OnDevice<Bf16> device_table(table), out(static_cast<size_t>(5 * hidden));
    OnDevice<int32_t> device_ids(ids);
    kernels::cuda::embed({matrix(device_table.data(), 5, hidden), device_ids.data(), matrix(out.data(), 5, hidden)},
                         nullptr);
    const std::vector<Bf16> got = out.read();
    for (size_t i = 0; i < want.size(); ++i) REQUIRE(kernels::to_float(got[i]) == want[i]);
  }
}

TEST_CASE("small ops refuse what they cannot do, and take nothing at all") {
  std::vector<float> numbers(64);
  std::vector<Bf16> halves(64);
  CHECK_THROWS_AS(kernels::cuda::silu_mul({matrix(numbers.data(), 1, 64), matrix(halves.data(), 1, 32)}, nullptr),
                  core::Error);
  CHECK_THROWS_AS(kernels::cuda::silu_mul({matrix(halves.data(), 1, 48), matrix(halves.data(), 1, 32)}, nullptr),
                  core::Error);
  CHECK_THROWS_AS(kernels::cuda::quantize({matrix(halves.data(), 1, 64), matrix(halves.data(), 1, 64)}, nullptr),
                  core::Error);
  CHECK_NOTHROW(kernels::cuda::silu_mul({matrix(halves.data(), 0, 64), matrix(halves.data(), 0, 32)}, nullptr));
}

}  // namespace
}  // namespace drydock::tests
