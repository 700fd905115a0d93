// Products of bf16 with bf16 by AVX512_BF16's vdpbf16ps, which adds two products to each fp32 lane; all else is as on
// "avx512". Its arithmetic (Intel SDM, VDPBF16PS; no control register changes it): products of bf16 are exact in fp32,
// at most two roundings to nearest for two products, so a sum of k of them is within k * 2^-24 of the sum of their
// magnitudes, as with fp32 multiply-adds. Subnormal operands count as 0 and subnormal sums become 0, which adds at most
// 2^-126 for each step and for each |other operand| of a subnormal one.
#define DRYDOCK_ISA avx512bf16
// clang-format off
#include "kernels/isa_simd.h"
#include "kernels/isa_tile.h"
// clang-format on

namespace drydock::kernels::cpu {

namespace avx512 {
const Isa& table();
}

namespace avx512bf16 {
namespace {

constexpr int kPairTileRows = 8, kPairTileVectors = 3;
constexpr int kPairTileCols = kPairTileVectors * kLanes;
static_assert(kPairTileRows <= kMostTileRows && kPairTileCols <= kMostTileCols);

// Lane i of `sum` plus elements 2 i and 2 i + 1 of `a` times those of `b`.
DRYDOCK_INLINE Floats add_pairs(Floats sum, Floats a, Floats b) {
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

// Up to 2 kLanes bf16 elements, the rest 0.
DRYDOCK_INLINE Floats load_pairs(const uint16_t* from, int64_t count) {
  if (count >= 2 * kLanes) return load<Floats>(from);
  return (Floats)_mm512_maskz_loadu_epi16(count > 0 ? (1u << count) - 1u : 0u, from);
}

void pack_pairs(const Rows& rows, int64_t cols, int64_t width, float* out) {
  const auto* data = static_cast<const uint16_t*>(rows.data);
  const int64_t pairs = (cols + 1) / 2;
  for (int64_t p = 0; p < pairs; p += kLanes) {
    const int64_t steps = pairs - p < kLanes ? pairs - p : kLanes;
    for (int64_t first = 0; first < width; first += kLanes) {
      Floats square[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const bool there = first + i < rows.count;
        square[i] = there ? load_pairs(data + (first + i) * rows.stride + 2 * p, cols - 2 * p) : Floats{};
      }
      transpose(square);
      float* to = out + p * width + first;
      if (first + kLanes <= width)
        for (int64_t i = 0; i < steps; ++i) store(to + i * width, square[i]);
      else
        for (int64_t i = 0; i < steps; ++i) store_part(to + i * width, square[i], width - first);
    }
  }
}

struct PairTile {
  static constexpr int kRows = kPairTileRows, kVectors = kPairTileVectors;
  static DRYDOCK_INLINE Floats factor(const float* a) { return (Floats)_mm512_set1_epi32(load<int32_t>(a)); }
  static DRYDOCK_INLINE Floats add(Floats sum, Floats factor, Floats row) { return add_pairs(sum, factor, row); }
};

template <int kM, int kN>
void dot_rows(const PairDots& op, int64_t n) {
  const uint16_t* weights = op.weights + n * op.stride;
  Floats sums[kM][kN];
  for (int i = 0; i < kM; ++i)
    for (int j = 0; j < kN; ++j) sums[i][j] = Floats{};
  const float* a = op.a;
  int64_t c = 0;
  for (; c + 2 * kLanes <= op.k; c += 2 * kLanes, a += kM * kLanes) {
    Floats w[kN];
    for (int j = 0; j < kN; ++j) {
      w[j] = load<Floats>(weights + j * op.stride + c);
      // With several rows of activations the processor's own prefetching falls behind.
      if (kM > 2) __builtin_prefetch(reinterpret_cast<const char*>(weights + j * op.stride + c) + 1024);
    }
    for (int i = 0; i < kM; ++i) {
      const Floats x = load<Floats>(a + i * kLanes);
      for (int j = 0; j < kN; ++j) sums[i][j] = add_pairs(sums[i][j], x, w[j]);
    }
  }
  for (int j = 0; j < kN && c < op.k; ++j) {
    const Floats w = load_pairs(weights + j * op.stride + c, op.k - c);
    for (int i = 0; i < kM; ++i) sums[i][j] = add_pairs(sums[i][j], load<Floats>(a + i * kLanes), w);
  }
  Floats all_lanes[kM * kN];  // so that the sums themselves can stay in registers
  for (int i = 0; i < kM; ++i)
    for (int j = 0; j < kN; ++j) all_lanes[i * kN + j] = sums[i][j];
  float dots[kM * kN];
  sum_lanes(all_lanes, dots);
  for (int i = 0; i < kM; ++i)
    for (int j = 0; j < kN; ++j) op.out[i * op.out_stride + n + j] = dots[i * kN + j];
}

template <int kM = 8>
void dot_pairs(const PairDots& op, int64_t begin, int64_t end) {
  if constexpr (kM > 1)
    if (op.m < kM) return dot_pairs<kM - 1>(op, begin, end);
  constexpr int kN = kM <= 4 ? 4 : 3;  // as many as there are registers for sums
  int64_t n = begin;
  for (; n + kN <= end; n += kN) dot_rows<kM, kN>(op, n);
  for (; n < end; ++n) dot_rows<kM, 1>(op, n);
}

Isa with_pairs(Isa isa) {
  isa.name = "avx512bf16";
  isa.pack_pairs = pack_pairs;
  isa.multiply_pairs = multiply_tile<PairTile>;
  isa.dot_pairs = dot_pairs<>;
  return isa;
}

}  // namespace

const Isa& table() {
  static const Isa isa = with_pairs(avx512::table());
  return isa;
}

}  // namespace avx512bf16
}  // namespace drydock::kernels::cpu
