#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/grouped_tiles.cuh"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

// A tile of the product is kTileRows x 128, worked through k in slices of 128 bytes of each row (64 bf16 or 128 fp8,
// one block of scales) that asynchronous copies bring to shared memory kStages ahead. A slice's rows are 8 pieces of 16
// bytes, piece p of row r at place p ^ (r % 8), so that the 8 rows that ldmatrix reads at once lie in different banks.
// bf16 and e4m3 differ in nothing but the product: ldmatrix moves 16 bytes a row, whatever they are.
constexpr int kTileColumns = 128;
constexpr int kSliceBytes = 128;
constexpr int kPieces = kSliceBytes / 16;

// How the warps of a block share a tile of kRows x 128. In fp8 a warp has half as much: before and after sm_89
// mma_fp8 converts to fp16 first, which takes registers.
template <bool kFp8, int kRows>
struct Plan {
  static constexpr int kWarpsDown = kRows == 16 ? 1 : kRows == 128 && kFp8 ? 4 : 2;
  static constexpr int kWarpsAcross = kRows == 64 && !kFp8 ? 2 : 4;
  static constexpr int kThreads = kWarpsDown * kWarpsAcross * kWarp;
  static constexpr int kWarpRows = kRows / kWarpsDown / 16;             // tiles of 16 rows of a warp
  static constexpr int kWarpColumns = kTileColumns / kWarpsAcross / 8;  // tiles of 8 columns of a warp
  static constexpr int kStages = kRows == 128 ? 3 : 4;
  static constexpr int kStageBytes = (kRows + kTileColumns) * kSliceBytes;
  static constexpr size_t kSharedBytes = static_cast<size_t>(kStages) * kStageBytes;
  static_assert(kSharedBytes <= size_t{99} * 1024, "what a block of sm_89 can have");
};

__device__ __forceinline__ unsigned char* place(unsigned char* rows, int row, int piece) {
  return rows + row * kSliceBytes + (piece ^ row % 8) * 16;
}

// `count` rows of 128 bytes from byte `at` of each row on; zeros beyond `rows` and the end of a row.
template <int kThreads>
__device__ __forceinline__ void copy_slice(unsigned char* to, const uint8_t* from, int64_t stride, int count,
                                           int64_t rows, int64_t at, int64_t row_bytes) {
  for (int i = static_cast<int>(threadIdx.x); i < count * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const int64_t byte = at + piece * 16;
    const bool inside = row < rows && byte < row_bytes;
    copy_async_16(place(to, row, piece), inside ? from + row * stride + byte : from, inside);
  }
}

template <bool kFp8, int kRows>
__device__ __forceinline__ void copy_stage(const GroupedOperands& op, unsigned char* stage, const GroupTile& tile,
                                           int64_t at) {
  constexpr int kThreads = Plan<kFp8, kRows>::kThreads;
  copy_slice<kThreads>(stage, op.a + tile.first_row * op.a_stride_bytes, op.a_stride_bytes, kRows,
                       tile.end_row - tile.first_row, at, op.row_bytes);
  copy_slice<kThreads>(stage + kRows * kSliceBytes, op.b + (tile.group * op.n + tile.first_column) * op.b_stride_bytes,
                       op.b_stride_bytes, kTileColumns, op.n - tile.first_column, at, op.row_bytes);
}

template <bool kFp8, int kRows>
using Sums = float[Plan<kFp8, kRows>::kWarpRows][Plan<kFp8, kRows>::kWarpColumns][4];

// sums += a slice of a times a slice of b: four products along the slice's 128 bytes.
template <bool kFp8, int kRows>
__device__ __forceinline__ void multiply_stage(unsigned char* stage, Sums<kFp8, kRows>& sums) {
  using P = Plan<kFp8, kRows>;
  const int lane = lane_index();
  const int top = warp_index() / P::kWarpsAcross * P::kWarpRows * 16;
  const int left = warp_index() % P::kWarpsAcross * P::kWarpColumns * 8;
  unsigned char* const b_rows = stage + kRows * kSliceBytes;
  [[maybe_unused]] constexpr int kUnroll = kFp8 ? 1 : kPieces / 2;  // converted operands of two parts would not fit
#pragma unroll kUnroll
  for (int part = 0; part < kPieces / 2; ++part) {
    uint32_t a[P::kWarpRows][4];
#pragma unroll
    for (int i = 0; i < P::kWarpRows; ++i)
      load_matrix_x4(a[i], place(stage, top + i * 16 + lane % 16, part * 2 + lane / 16));
#pragma unroll
    for (int j = 0; j < P::kWarpColumns; j += 2) {
      uint32_t b[4];  // two tiles of 8 columns: lanes 0-7 and 8-15 address the first's halves of k
      load_matrix_x4(b, place(b_rows, left + j * 8 + lane % 8 + lane / 16 * 8, part * 2 + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < P::kWarpRows; ++i) {
        if constexpr (kFp8) {
          mma_fp8(sums[i][j], a[i], b[0], b[1]);
          mma_fp8(sums[i][j + 1], a[i], b[2], b[3]);
        } else {
          mma_bf16(sums[i][j], a[i], b[0], b[1]);
          mma_bf16(sums[i][j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }
}

// Row and column, in the whole product and within the group, of number r of the warp's tile (i, j).
template <bool kFp8, int kRows>
struct Place {
  int64_t row, column;
  __device__ Place(const GroupTile& tile, int i, int j, int r) {
    using P = Plan<kFp8, kRows>;
    const int lane = lane_index();
    row = tile.first_row + warp_index() / P::kWarpsAcross * P::kWarpRows * 16 + i * 16 + lane / 4 + r / 2 * 8;
    column = tile.first_column + warp_index() % P::kWarpsAcross * P::kWarpColumns * 8 + j * 8 + lane % 4 * 2 + r % 2;
  }
};

// sums += part * the scales of k's block `block`, and part = 0.
template <bool kFp8, int kRows>
__device__ __forceinline__ void add_scaled(const GroupedOperands& op, const GroupTile& tile, int64_t block,
                                           Sums<kFp8, kRows>& sums, Sums<kFp8, kRows>& part) {
  using P = Plan<kFp8, kRows>;
  const int64_t blocks = (op.row_bytes + 127) / 128;
  float a_scales[P::kWarpRows][2];
#pragma unroll
  for (int i = 0; i < P::kWarpRows; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = Place<kFp8, kRows>(tile, i, 0, 2 * half).row;
      a_scales[i][half] = row < tile.end_row ? op.a_scales[row * blocks + block] : 0.0F;
    }
#pragma unroll
  for (int j = 0; j < P::kWarpColumns; ++j) {
    // 8 columns lie in one block of 128 weight rows unless n is no multiple of 8.
    const int64_t column = Place<kFp8, kRows>(tile, 0, j, 0).column;
    const int64_t next = column + 1;
    const float even = column < op.n ? op.b_scales[(tile.group * op.n + column) / 128 * blocks + block] : 0.0F;
    const float odd = next < op.n ? op.b_scales[(tile.group * op.n + next) / 128 * blocks + block] : 0.0F;
#pragma unroll
    for (int i = 0; i < P::kWarpRows; ++i)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        sums[i][j][r] += part[i][j][r] * (a_scales[i][r / 2] * (r % 2 == 0 ? even : odd));
        part[i][j][r] = 0;
      }
  }
}

template <bool kFp8, int kRows>
__device__ __forceinline__ void write(const GroupedOperands& op, const GroupTile& tile, const Sums<kFp8, kRows>& sums) {
  using P = Plan<kFp8, kRows>;
#pragma unroll
  for (int i = 0; i < P::kWarpRows; ++i)
#pragma unroll
    for (int j = 0; j < P::kWarpColumns; ++j)
#pragma unroll
      for (int r = 0; r < 4; r += 2) {
        const Place<kFp8, kRows> at(tile, i, j, r);
        write_pair(op, tile, at.row, at.column, sums[i][j][r], sums[i][j][r + 1]);
      }
}

template <bool kFp8, bool kBlockScales, int kRows>
__global__ void __launch_bounds__(Plan<kFp8, kRows>::kThreads, 1) grouped_gemm_kernel(GroupedOperands op) {
  DRYDOCK_DYNAMIC_SHARED(shared);
  using P = Plan<kFp8, kRows>;
  const int64_t slices = (op.row_bytes + kSliceBytes - 1) / kSliceBytes;
  GroupWalk walk;
  GroupTile tile = {};
  dependency_wait();
  for (int64_t number = blockIdx.x; find_tile<kRows, kTileColumns>(op, number, walk, tile); number += gridDim.x) {
    Sums<kFp8, kRows> sums = {};
    [[maybe_unused]] Sums<kFp8, kRows> part = {};
#pragma unroll
    for (int s = 0; s < P::kStages - 1; ++s) {
      if (s < slices) copy_stage<kFp8, kRows>(op, shared + s * P::kStageBytes, tile, int64_t{s} * kSliceBytes);
      copy_async_commit();
    }
    for (int64_t slice = 0; slice < slices; ++slice) {
      copy_async_wait<P::kStages - 2>();
      sync_block();  // the slice is there for all, and the stage that is filled next has been read by all
      const int64_t ahead = slice + P::kStages - 1;
      if (ahead < slices)
        copy_stage<kFp8, kRows>(op, shared + ahead % P::kStages * P::kStageBytes, tile, ahead * kSliceBytes);
      copy_async_commit();
      unsigned char* const stage = shared + slice % P::kStages * P::kStageBytes;
      if constexpr (kBlockScales) {
        multiply_stage<kFp8, kRows>(stage, part);
        add_scaled<kFp8, kRows>(op, tile, slice, sums, part);
      } else {
        multiply_stage<kFp8, kRows>(stage, sums);
      }
    }
    write<kFp8, kRows>(op, tile, sums);
    copy_async_wait<0>();
    sync_block();
  }
  dependency_launch();
}

template <bool kFp8, bool kBlockScales, int kRows>
void start(const GroupedOperands& op, int64_t rows, Stream stream) {
  const int64_t across = (op.n + kTileColumns - 1) / kTileColumns;
  const int64_t most_tiles = (rows / kRows + std::min(op.groups, rows)) * across;  // a part of a tile for each group
  const int64_t resident = multiprocessors() * 2;
  const LaunchShape shape{.grid_x = static_cast<unsigned>(std::clamp<int64_t>(most_tiles, 1, resident)),
                          .threads = Plan<kFp8, kRows>::kThreads,
                          .shared_bytes = Plan<kFp8, kRows>::kSharedBytes,
                          .programmatic = true};
  launch(grouped_gemm_kernel<kFp8, kBlockScales, kRows>, shape, stream, op);
}

template <bool kFp8, bool kBlockScales>
void start(const GroupedOperands& op, int64_t rows, Stream stream) {
  const int64_t tile = grouped_gemm_tile(rows, op.groups);
  if (tile == 16) return start<kFp8, kBlockScales, 16>(op, rows, stream);
  // Block scales need a second set of sums, for which a tile of 128 rows has no registers.
  if (tile == 64 || kBlockScales) return start<kFp8, kBlockScales, 64>(op, rows, stream);
  if constexpr (!kBlockScales) start<kFp8, kBlockScales, 128>(op, rows, stream);
}

void check(const Matrix& matrix, const char* which) {
  if (!has_whole_pieces(matrix))
    throw core::Error(std::string("grouped_gemm: ") + which +
                      " is not aligned; an address, a stride and k of multiples of 16 bytes are right");
}

}  // namespace

int64_t grouped_gemm_tile(int64_t rows, int64_t groups) {
  const int64_t mean = rows / std::max<int64_t>(1, groups);
  return mean <= 16 ? 16 : mean <= 96 ? 64 : 128;
}

void grouped_gemm(const GroupedGemm& gemm, Stream stream) {
  if (gemm.a.rows <= 0 || gemm.groups <= 0 || gemm.out.cols <= 0) return;
  if (!is_known_product(gemm.a, gemm.b, gemm.out))
    throw core::Error("grouped_gemm: a and b are both bf16 or both fp8 with scales of one kind, out bf16 or fp32");
  check(gemm.a, "a");
  check(gemm.b, "b");
  const GroupedOperands op = grouped_operands(gemm);
  if (op.scaling == Scaling::none) return start<false, false>(op, gemm.a.rows, stream);
  if (op.scaling == Scaling::block) return start<true, true>(op, gemm.a.rows, stream);
  start<true, false>(op, gemm.a.rows, stream);
}

void tiled_gemm(const Gemm& op, Stream stream) {
  grouped_gemm({.a = op.a, .b = op.b, .out = op.out, .starts = nullptr, .groups = 1}, stream);
}

}  // namespace drydock::kernels::cuda
