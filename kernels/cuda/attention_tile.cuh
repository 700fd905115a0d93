#pragma once
// Tiles of keys and values in shared memory, and the tensor-core fragments that attention takes from them. The letters
// of fragments are those of simt_mma.h: group = lane / 4, pair = lane % 4.
#include <cstdint>

#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {

inline constexpr float kLog2E = 1.44269504F;
inline constexpr float kMinusInfinity = -__builtin_huge_valf();

// Rows of kDim elements, one per token. Their 16-byte chunks are exchanged within groups of 8 (4 in rows of 64 bytes)
// so that eight rows of one column of chunks lie in different banks, which is what ldmatrix reads.
template <int kDim, typename Element>
struct Tile {
  static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(Element));
  static constexpr int kChunks = kRowBytes / 16;
  static_assert(kChunks == 4 || kChunks % 8 == 0);

  __device__ static __forceinline__ int offset(int row, int chunk) {
    const int exchange = kChunks == 4 ? row >> 1 & 3 : row & 7;
    return row * kRowBytes + (chunk ^ exchange) * 16;
  }
  // offset(row, chunk + more) from offset(row, chunk), when the two numbers have no bit in common: with `more` known to
  // the compiler, one instruction.
  __device__ static __forceinline__ int advance(int offset, int more) {
    return (offset ^ more % 8 * 16) + more / 8 * 128;
  }
};

__device__ __forceinline__ uint32_t multiply_bf16_pair(uint32_t x, float factor) {
#ifdef DRYDOCK_SIMT_EMULATOR
  const Float2 numbers = unpack_bf16(x);
  return pack_bf16(numbers.x * factor, numbers.y * factor);
#else
  const __nv_bfloat162 product = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&x), __float2bfloat162_rn(factor));
  return *reinterpret_cast<const uint32_t*>(&product);
#endif
}

// Four e4m3 as bfloat16, bytes 0 and 2 in `even`, 1 and 3 in `odd`. Sign, exponent and mantissa move to their places in
// the wider format, where they stand for 2^-120 of the number (biases 7 and 127). NaN becomes 480.
__device__ __forceinline__ void split_fp8(uint32_t word, uint32_t& even, uint32_t& odd) {
  even = multiply_bf16_pair((word << 8U & 0x80008000U) | (word << 4U & 0x07f007f0U), 0x1p120F);
  odd = multiply_bf16_pair((word & 0x80008000U) | (word >> 4U & 0x07f007f0U), 0x1p120F);
}

// Steps of 16 dims that one ldmatrix brings of 16 tokens' keys.
template <typename Element>
inline constexpr int kKeySteps = sizeof(Element) == 2 ? 1 : 2;

// B fragments of keys, n = tokens `first` ... + 15 and k = the `step`th kKeySteps times 16 dims:
// b[k / 16][n / 8][register]. From fp8 the dims of one 16 are in another order, that of query_fragment.
template <int kDim, typename Element>
__device__ __forceinline__ void load_keys(uint32_t (&b)[kKeySteps<Element>][2][2], const unsigned char* tile, int first,
                                          int step) {
  using T = Tile<kDim, Element>;
  const int matrix = lane_index() / 8, row = lane_index() % 8;
  const unsigned char* const rows = tile + first * T::kRowBytes;
  uint32_t words[4];
  if constexpr (sizeof(Element) == 2) {
    load_matrix_x4(words, rows + T::advance(T::offset(row + matrix / 2 * 8, matrix % 2), 2 * step));
#pragma unroll
    for (int m = 0; m < 4; ++m) b[0][m / 2][m % 2] = words[m];
  } else {
    load_matrix_x4(words, rows + T::advance(T::offset(row + matrix % 2 * 8, matrix / 2), 2 * step));
#pragma unroll
    for (int m = 0; m < 4; ++m) split_fp8(words[m], b[m / 2][m % 2][0], b[m / 2][m % 2][1]);
  }
}

// B fragments of values, k = tokens `first` ... + 15 and n = dims 32 step ... + 31: b[n / 8][register]. From fp8 the
// dims are in another order, that of output_dim.
template <int kDim, typename Element>
__device__ __forceinline__ void load_values(uint32_t (&b)[4][2], const unsigned char* tile, int first, int step) {
  using T = Tile<kDim, Element>;
  const int matrix = lane_index() / 8, row = lane_index() % 8 + matrix % 2 * 8;
  const unsigned char* const rows = tile + first * T::kRowBytes;
  const int place = T::offset(row, matrix / 2);
  uint32_t words[4];
  if constexpr (sizeof(Element) == 2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      load_matrix_x4_transposed(words, rows + T::advance(place, 4 * step + 2 * i));
#pragma unroll
      for (int m = 0; m < 4; ++m) b[2 * i + m / 2][m % 2] = words[m];
    }
  } else {
    load_matrix_x4_transposed(words, rows + T::advance(place, 2 * step));
#pragma unroll
    for (int m = 0; m < 4; ++m) split_fp8(words[m], b[m / 2 * 2][m % 2], b[m / 2 * 2 + 1][m % 2]);
  }
}

// One row of an A fragment, from where dims 16 step ... + 15 of a query begin: `low` is k = 2 pair, + 1, `high` k + 8,
// with the dims in the order in which load_keys has those of keys of type Element.
template <typename Element>
__device__ __forceinline__ void query_fragment(uint32_t& low, uint32_t& high, const unsigned char* dims) {
  const int pair = lane_index() % 4;
  if constexpr (sizeof(Element) == 2) {
    low = *reinterpret_cast<const uint32_t*>(dims + 4 * pair);
    high = *reinterpret_cast<const uint32_t*>(dims + 4 * pair + 16);
  } else {
    const Vector<uint32_t, 2> four = load_vector<2>(reinterpret_cast<const uint32_t*>(dims + 8 * pair));
    low = (four[0] & 0xffffU) | four[1] << 16U;
    high = four[0] >> 16U | (four[1] & 0xffff0000U);
  }
}

// The dim that registers 0 and 1 (`i`, + 2 for the row below) of the product with values' n-tile `tile` stand for.
template <typename Element>
__device__ __forceinline__ int output_dim(int tile, int i) {
  const int pair = lane_index() % 4;
  return sizeof(Element) == 2 ? 8 * tile + 2 * pair + i : tile / 2 * 16 + 4 * pair + 2 * i + tile % 2;
}

// Softmax as it goes, for rows group and group + 8 of a 16-row tile (Milakov and Gimelshein, arXiv 1805.02867). Logits
// are in units of log2, so that exp2 does; `sum` is this lane's share until finish().
struct OnlineSoftmax {
  float top[2] = {kMinusInfinity, kMinusInfinity};
  float sum[2] = {0, 0};

  // logits[n-tile][register], -infinity where masked, become probabilities relative to the new top, which are
  // factor * exp2(...); `rescale` is what all earlier ones have to be multiplied by. scale > 0.
  template <int kTiles>
  __device__ __forceinline__ void add(float (&logits)[kTiles][4], float scale, float (&rescale)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float most = kMinusInfinity;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) most = fmaxf(most, fmaxf(logits[n][2 * half], logits[n][2 * half + 1]));
      most = fmaxf(top[half], warp_max<4>(most) * scale);
      const float base = most == kMinusInfinity ? 0.0F : most;  // all masked so far
      rescale[half] = fast_exp2(top[half] - base);
      top[half] = most;
      float here = 0;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          logits[n][i] = fast_exp2(logits[n][i] * scale - base);
          here += logits[n][i];
        }
      }
      sum[half] = sum[half] * rescale[half] + here;
    }
  }

  __device__ __forceinline__ void finish() {
    sum[0] = warp_sum<4>(sum[0]);
    sum[1] = warp_sum<4>(sum[1]);
  }
};

// Two n-tiles of probabilities, 16 tokens, as an A fragment.
__device__ __forceinline__ void pack_probabilities(uint32_t (&a)[4], const float (&low)[4], const float (&high)[4]) {
  a[0] = pack_bf16(low[0], low[1]);
  a[1] = pack_bf16(low[2], low[3]);
  a[2] = pack_bf16(high[0], high[1]);
  a[3] = pack_bf16(high[2], high[3]);
}

}  // namespace drydock::kernels::cuda
