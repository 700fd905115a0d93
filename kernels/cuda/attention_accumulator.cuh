#pragma once
// Causal attention of one warp: its rows of queries against one tile of keys and values after another, by mma.sync.
#include <cstdint>

#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {

// A fragment of queries: 16 rows from `row`, dims 16 step ... + 15.
template <int kDim, typename Element>
__device__ __forceinline__ void load_queries(uint32_t (&a)[4], const unsigned char* queries, int row, int step) {
  using Q = Tile<kDim, Bf16>;
  const int lane = lane_index();
  if constexpr (sizeof(Element) == 2) {
    load_matrix_x4(a, queries + row * Q::kRowBytes + Q::advance(Q::offset(lane % 16, lane / 16), 2 * step));
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // query_fragment adds 8 * pair bytes, which may be in the second chunk.
      const int pair = lane % 4, place = Q::offset(row + lane / 4 + 8 * half, 2 * step + pair / 2);
      query_fragment<Element>(a[half], a[half + 2], queries + place - pair / 2 * 16);
    }
  }
}

// S has kKeyDim and kValueDim, kTokens of a tile, kWarpRows = 16 kRowTiles of a warp, and kUnroll: steps over the dims
// of a key that overlap, of which more may not fit into the registers.
template <typename S, typename Element>
struct Accumulator {
  static constexpr int kTokenTiles = S::kTokens / 8;
  float out[S::kRowTiles][S::kValueDim / 8][4] = {};
  OnlineSoftmax softmax[S::kRowTiles];

  __device__ __forceinline__ void score(float (&logits)[S::kRowTiles][kTokenTiles][4], const unsigned char* queries,
                                        const unsigned char* keys) const {
    constexpr int kSteps = kKeySteps<Element>;
#pragma unroll(S::kUnroll)
    for (int step = 0; step < S::kKeyDim / 16; step += kSteps) {
      uint32_t a[S::kRowTiles][kSteps][4];
#pragma unroll
      for (int i = 0; i < kSteps * S::kRowTiles; ++i)
        load_queries<S::kKeyDim, Element>(a[i / kSteps][i % kSteps], queries,
                                          warp_index() * S::kWarpRows + i / kSteps * 16, step + i % kSteps);
#pragma unroll
      for (int t = 0; t < kTokenTiles / 2; ++t) {
        uint32_t b[kSteps][2][2];
        load_keys<S::kKeyDim, Element>(b, keys, 16 * t, step / kSteps);
#pragma unroll
        for (int i = 0; i < 2 * kSteps * S::kRowTiles; ++i) {
          const int r = i / 2 / kSteps, k = i / 2 % kSteps, n = i % 2;
          mma_bf16(logits[r][2 * t + n], a[r][k], b[k][n][0], b[k][n][1]);
        }
      }
    }
  }

  // Hides what rows do not see of the tokens from `first` on.
  __device__ __forceinline__ void mask(float (&logits)[S::kRowTiles][kTokenTiles][4], const PrefillTile& tile,
                                       int window, int first) const {
#pragma unroll
    for (int r = 0; r < 2 * S::kRowTiles; ++r) {
      const int end = tile.end_of(warp_index() * S::kWarpRows + r * 8 + lane_index() / 4) - first;
      const int begin = window > 0 ? end - window : -first;
#pragma unroll
      for (int i = 0; i < 2 * kTokenTiles; ++i) {
        const int token = i / 2 * 8 + lane_index() % 4 * 2 + i % 2;
        if (token >= end || token < begin) logits[r / 2][i / 2][r % 2 * 2 + i % 2] = kMinusInfinity;
      }
    }
  }

  __device__ __forceinline__ void rescale_and_add(float (&logits)[kTokenTiles][4], int r, float scale) {
    float rescale[2];
    softmax[r].add(logits, scale, rescale);
    if (ballot(rescale[0] != 1 || rescale[1] != 1) == 0) return;  // no row of the warp has a new top: the usual case
#pragma unroll
    for (int i = 0; i < S::kValueDim / 2; ++i) out[r][i / 4][i % 4] *= rescale[i % 4 / 2];
  }

  __device__ __forceinline__ void add_values(const float (&logits)[S::kRowTiles][kTokenTiles][4],
                                             const unsigned char* values) {
#pragma unroll
    for (int t = 0; t < kTokenTiles / 2; ++t) {
      uint32_t a[S::kRowTiles][4];
#pragma unroll
      for (int r = 0; r < S::kRowTiles; ++r) pack_probabilities(a[r], logits[r][2 * t], logits[r][2 * t + 1]);
#pragma unroll
      for (int step = 0; step < S::kValueDim / 32; ++step) {
        uint32_t b[4][2];
        load_values<S::kValueDim, Element>(b, values, 16 * t, step);
#pragma unroll
        for (int i = 0; i < 4 * S::kRowTiles; ++i)
          mma_bf16(out[i / 4][4 * step + i % 4], a[i / 4], b[i % 4][0], b[i % 4][1]);
      }
    }
  }

  // All of a tile whose tokens are [first, first + kTokens).
  __device__ __forceinline__ void add_tile(const unsigned char* queries, const unsigned char* keys,
                                           const unsigned char* values, const PrefillTile& tile, int window, int first,
                                           float scale) {
    float logits[S::kRowTiles][kTokenTiles][4] = {};
    score(logits, queries, keys);
    if (needs_mask(tile, window, first, S::kTokens)) mask(logits, tile, window, first);
#pragma unroll
    for (int r = 0; r < S::kRowTiles; ++r) rescale_and_add(logits[r], r, scale);
    add_values(logits, values);
  }

  // One row of results as bf16 into `rows`, a tile of rows of values.
  __device__ __forceinline__ void put_row(unsigned char* rows, int row, int r, int half, float factor) const {
    using V = Tile<S::kValueDim, Bf16>;
    const int pair = lane_index() % 4;
#pragma unroll
    for (int n = 0; n < S::kValueDim / 8; n += 2) {
      const float(&even)[4] = out[r][n];
      const float(&odd)[4] = out[r][n + 1];
      if constexpr (sizeof(Element) == 2) {
        *reinterpret_cast<uint32_t*>(rows + V::offset(row, n) + 4 * pair) =
            pack_bf16(even[2 * half] * factor, even[2 * half + 1] * factor);
        *reinterpret_cast<uint32_t*>(rows + V::offset(row, n + 1) + 4 * pair) =
            pack_bf16(odd[2 * half] * factor, odd[2 * half + 1] * factor);
      } else {  // four neighbouring dims: output_dim
        const Vector<uint32_t, 2> four{{pack_bf16(even[2 * half] * factor, odd[2 * half] * factor),
                                        pack_bf16(even[2 * half + 1] * factor, odd[2 * half + 1] * factor)}};
        store_vector<2>(reinterpret_cast<uint32_t*>(rows + V::offset(row, n + pair / 2) + pair % 2 * 8), four);
      }
    }
  }

  // Results by way of the warp's own queries, which nobody needs any more. factor(row, top, sum) is what a row's sums
  // are multiplied with, place(row) where its result begins; rows from `rows` on are nobody's.
  template <typename Factor, typename Place>
  __device__ __forceinline__ void write(unsigned char* queries, int rows, Factor&& factor, Place&& place) {
    using V = Tile<S::kValueDim, Bf16>;
    static_assert(S::kValueDim <= S::kKeyDim);
    const int first = warp_index() * S::kWarpRows;
    unsigned char* const mine = queries + first * Tile<S::kKeyDim, Bf16>::kRowBytes;
#pragma unroll
    for (int r = 0; r < S::kRowTiles; ++r) {
      softmax[r].finish();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = r * 16 + half * 8 + lane_index() / 4;
        put_row(mine, row, r, half, factor(first + row, softmax[r].top[half], softmax[r].sum[half]));
      }
    }
    sync_warp();
    for (int i = lane_index(); i < S::kWarpRows * V::kChunks; i += kWarp) {
      const int row = i / V::kChunks, chunk = i % V::kChunks;
      if (first + row >= rows) break;
      const auto words = load_vector<4>(reinterpret_cast<const uint32_t*>(mine + V::offset(row, chunk)));
      store_vector<4>(reinterpret_cast<uint32_t*>(place(first + row) + chunk * 16), words);
    }
  }
};

}  // namespace drydock::kernels::cuda
