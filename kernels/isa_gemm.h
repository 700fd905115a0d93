// Packing and the inner kernels of matrix products; included by the file of each instruction set.
#include "kernels/isa_tile.h"

namespace drydock::kernels::cpu::DRYDOCK_ISA {
namespace {

// Accumulators of a tile, its row of `b` and one broadcast fill the registers: 32 of them with AVX-512 and on aarch64,
// 16 otherwise.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileVectors = 3;
constexpr int kTileCols = kTileVectors * kLanes;
static_assert(kTileRows <= kMostTileRows && kTileCols <= kMostTileCols);

// Elements [c, c + kLanes) of kLanes rows from `first` on, transposed and scaled; what lies outside is 0.
template <typename Stored>
DRYDOCK_INLINE void load_square(const Rows& rows, int64_t first, int64_t c, int64_t cols, Floats (&square)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    square[i] = Floats{};
    if (first + i >= rows.count) continue;
    const auto* row = static_cast<const typename Stored::Element*>(rows.data) + (first + i) * rows.stride + c;
    square[i] = c + kLanes <= cols ? load_as<Stored>(row) : load_part<Stored>(row, cols - c);
    if (rows.scales != nullptr) square[i] *= rows.scales[first + i];
  }
  transpose(square);
}

template <typename Stored>
void pack_as(const Rows& rows, int64_t cols, int64_t width, float* out) {
  for (int64_t c = 0; c < cols; c += kLanes) {
    const int64_t steps = cols - c < kLanes ? cols - c : kLanes;
    for (int64_t first = 0; first < width; first += kLanes) {
      Floats square[kLanes];
      load_square<Stored>(rows, first, c, cols, square);
      float* to = out + c * width + first;
      if (first + kLanes <= width)
        for (int64_t i = 0; i < steps; ++i) store(to + i * width, square[i]);
      else
        for (int64_t i = 0; i < steps; ++i) store_part(to + i * width, square[i], width - first);
    }
  }
}

void pack(const Rows& rows, int64_t cols, int64_t width, float* out) {
  with_format(rows.dtype, [&](auto stored) { pack_as<decltype(stored)>(rows, cols, width, out); });
}

struct FloatTile {
  static constexpr int kRows = kTileRows, kVectors = kTileVectors;
  static DRYDOCK_INLINE Floats factor(const float* a) { return all(*a); }
  static DRYDOCK_INLINE Floats add(Floats sum, Floats factor, Floats row) { return sum + factor * row; }
};

// Products of kM rows of activations with kN of weights over elements [begin, end), which have one scale.
template <typename Stored, int kM, int kN>
DRYDOCK_INLINE void dot_span(const Dots& op, const typename Stored::Element* weights, int64_t begin, int64_t end,
                             Floats (&sums)[kM][kN]) {
  int64_t c = begin;
  for (; c + kLanes <= end; c += kLanes) {
    Floats w[kN];
    for (int j = 0; j < kN; ++j) {
      w[j] = load_as<Stored>(weights + j * op.stride + c);
      // With several rows of activations the processor's own prefetching falls behind.
      if (kM > 2) __builtin_prefetch(reinterpret_cast<const char*>(weights + j * op.stride + c) + 1024);
    }
    for (int i = 0; i < kM; ++i) {
      const Floats x = load<Floats>(op.a + i * op.a_stride + c);
      for (int j = 0; j < kN; ++j) sums[i][j] += x * w[j];
    }
  }
  if (c == end) return;
  for (int j = 0; j < kN; ++j) {
    const Floats w = load_part<Stored>(weights + j * op.stride + c, end - c);
    for (int i = 0; i < kM; ++i) {
      // Of activations there may be more numbers after `end`; times the zeros of `w` they must not make NaN.
      sums[i][j] += load_part<StoredFloat>(op.a + i * op.a_stride + c, end - c) * w;
    }
  }
}

template <typename Stored, int kM, int kN>
void dot_rows(const Dots& op, int64_t n) {
  const auto* weights = static_cast<const typename Stored::Element*>(op.weights) + n * op.stride;
  const int64_t span = op.scales != nullptr && op.scale_cols > 0 ? op.scale_cols : op.k;
  const int64_t spans = op.k > 0 ? (op.k + span - 1) / span : 0;
  Floats totals[kM][kN];
  for (int i = 0; i < kM; ++i)
    for (int j = 0; j < kN; ++j) totals[i][j] = Floats{};
  for (int64_t s = 0; s < spans; ++s) {
    Floats sums[kM][kN];
    for (int i = 0; i < kM; ++i)
      for (int j = 0; j < kN; ++j) sums[i][j] = Floats{};
    const int64_t end = (s + 1) * span < op.k ? (s + 1) * span : op.k;
    dot_span<Stored, kM, kN>(op, weights, s * span, end, sums);
    for (int j = 0; j < kN; ++j) {
      const float scale = op.scales != nullptr ? op.scales[(op.first_row + n + j) / op.scale_rows * spans + s] : 1.0F;
      for (int i = 0; i < kM; ++i) totals[i][j] += sums[i][j] * scale;
    }
  }
  Floats all_lanes[kM * kN];  // so that the sums themselves can stay in registers
  for (int i = 0; i < kM; ++i)
    for (int j = 0; j < kN; ++j) all_lanes[i * kN + j] = totals[i][j];
  float dots[kM * kN];
  sum_lanes(all_lanes, dots);
  for (int i = 0; i < kM; ++i)
    for (int j = 0; j < kN; ++j) op.out[i * op.out_stride + n + j] = dots[i * kN + j];
}

template <typename Stored, int kM>
void dots_of(const Dots& op, int64_t begin, int64_t end) {
  // As many rows of weights as there are registers for sums: each pass over them reads all activations again, which
  // 8 long rows of are more than the first cache holds.
#if defined(__AVX512F__) || defined(__aarch64__)
  constexpr int kN = kM <= 4 ? 4 : 3;
#else
  constexpr int kN = kM <= 2 ? 4 : kM <= 6 ? 2 : 1;
#endif
  int64_t n = begin;
  for (; n + kN <= end; n += kN) dot_rows<Stored, kM, kN>(op, n);
  for (; n < end; ++n) dot_rows<Stored, kM, 1>(op, n);
}

template <typename Stored, int kM = 8>
void dots_as(const Dots& op, int64_t begin, int64_t end) {
  if constexpr (kM > 1)
    if (op.m < kM) return dots_as<Stored, kM - 1>(op, begin, end);
  dots_of<Stored, kM>(op, begin, end);
}

void dots(const Dots& op, int64_t begin, int64_t end) {
  with_format(op.dtype, [&](auto stored) { dots_as<decltype(stored)>(op, begin, end); });
}

}  // namespace
}  // namespace drydock::kernels::cpu::DRYDOCK_ISA
