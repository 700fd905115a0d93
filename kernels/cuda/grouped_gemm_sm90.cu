// Grouped products by wgmma and TMA. Compiled for sm_90a, not yet run on a GPU.
//
// One block a multiprocessor walks over the tiles of all groups. One thread of its first warpgroup has TMA bring slices
// of 128 bytes of both operands' rows, kStages ahead and across the ends of tiles; the other two warpgroups multiply 64
// rows each. A tile that reaches beyond its group's rows reads those of the next, and one beyond its weights' rows the
// next group's weights: numbers of rows and columns that are not written.
#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/grouped_gemm_sm90.h"
#include "kernels/cuda/grouped_tiles.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/tensor_map.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kGroupThreads = 128, kThreads = 3 * kGroupThreads;
constexpr int kRows = 128;  // of a tile, 64 of each consumer
constexpr int kSliceBytes = 128;

// Scales by block keep two sets of sums, and come once for 128 columns.
template <bool kBlockScales>
struct Shape {
  static constexpr int kColumns = kBlockScales ? 128 : 256;
  static constexpr int kStages = kBlockScales ? 6 : 4;
  static constexpr int kWeightsAt = kRows * kSliceBytes;  // within a stage
  static constexpr int kStageBytes = kWeightsAt + kColumns * kSliceBytes;
  static constexpr int kBarriersAt = kStages * kStageBytes;
  static constexpr int kSharedBytes = kBarriersAt + 2 * kStages * 8 + 1024;  // the swizzle needs an aligned start
  static_assert(kSharedBytes <= 227 * 1024);
};

struct Maps {
  CUtensorMap a, b;
};

#if DRYDOCK_SM90A

constexpr int kGroupRows = 64;
constexpr int kProducts = 4;  // of 32 bytes along a slice

// Stages of a block and where it is among them; slices are counted over all of its tiles.
template <bool kBlockScales>
struct Pipeline {
  using S = Shape<kBlockScales>;
  uint32_t base;
  uint32_t slice = 0;

  __device__ explicit Pipeline(const unsigned char* shared)
      : base((hopper::shared_address(shared) + 1023) / 1024 * 1024) {}
  __device__ __forceinline__ uint32_t stage(uint32_t number) const {
    return base + number % S::kStages * S::kStageBytes;
  }
  __device__ __forceinline__ uint32_t full(uint32_t number) const {
    return base + S::kBarriersAt + number % S::kStages * 8;
  }
  __device__ __forceinline__ uint32_t empty(uint32_t number) const { return full(number) + S::kStages * 8; }
  __device__ static __forceinline__ uint32_t parity(uint32_t number) { return number / S::kStages & 1U; }

  __device__ __forceinline__ void init() const {
    if (threadIdx.x == 0) {
      for (uint32_t s = 0; s < S::kStages; ++s) {
        hopper::barrier_init(full(s), 1);
        hopper::barrier_init(empty(s), 8);  // the consumers' warps
      }
      hopper::barrier_init_fence();
    }
    sync_block();
  }
};

// One thread.
template <bool kBlockScales, typename Pipe>
__device__ __forceinline__ void produce(const GroupedOperands& op, const Maps& maps, Pipe& pipe, int element_bytes) {
  using S = Shape<kBlockScales>;
  const auto slices = static_cast<int>((op.row_bytes + kSliceBytes - 1) / kSliceBytes);
  GroupWalk walk;
  GroupTile tile = {};
  for (int64_t number = blockIdx.x; find_tile<kRows, S::kColumns>(op, number, walk, tile); number += gridDim.x) {
    const auto a_row = static_cast<int>(tile.first_row);
    const auto b_row = static_cast<int>(tile.group * op.n + tile.first_column);
#pragma unroll 1
    for (int slice = 0; slice < slices; ++slice, ++pipe.slice) {
      hopper::barrier_wait(pipe.empty(pipe.slice), pipe.parity(pipe.slice) ^ 1U);
      const uint32_t barrier = pipe.full(pipe.slice), to = pipe.stage(pipe.slice);
      const int column = slice * (kSliceBytes / element_bytes);
      hopper::barrier_arrive_expecting(barrier, S::kStageBytes);
      hopper::copy_box(to, &maps.a, barrier, column, a_row);
      hopper::copy_box(to + S::kWeightsAt, &maps.b, barrier, column, b_row);
    }
  }
}

// One warpgroup: 64 rows of every tile of the block.
template <bool kFp8, bool kBlockScales>
struct Consumer {
  using S = Shape<kBlockScales>;
  static constexpr int kTiles = S::kColumns / 8;
  const GroupedOperands& op;
  Pipeline<kBlockScales>& pipe;
  int group;
  float sums[kTiles][4];

  __device__ __forceinline__ int64_t row_of(const GroupTile& tile, int half) const {
    const int warp = static_cast<int>(threadIdx.x) % kGroupThreads / kWarp;
    return tile.first_row + group * kGroupRows + warp * 16 + half * 8 + lane_index() / 4;
  }

  // to = or += the slice's products, which are under way afterwards.
  __device__ __forceinline__ void start(float (&to)[kTiles][4], bool add) const {
    const uint32_t stage = pipe.stage(pipe.slice), rows = stage + group * kGroupRows * kSliceBytes;
    hopper::hold(to);
    hopper::products_begin();
#pragma unroll
    for (int step = 0; step < kProducts; ++step) {
      const uint64_t a = hopper::descriptor(rows + step * 32, 16);
      const uint64_t b = hopper::descriptor(stage + S::kWeightsAt + step * 32, 16);
      if constexpr (kFp8)
        hopper::multiply_shared_fp8(to, a, b, add || step != 0);
      else
        hopper::multiply_shared(to, a, b, add || step != 0);
    }
    hopper::products_commit();
  }

  __device__ __forceinline__ void wait_full() const {
    hopper::barrier_wait(pipe.full(pipe.slice), pipe.parity(pipe.slice));
  }
  __device__ __forceinline__ void release(uint32_t slice) const {
    if (lane_index() == 0) hopper::barrier_arrive(pipe.empty(slice));
  }

  // The products of one slice run while the next is waited for.
  __device__ __forceinline__ void add_slices(int slices) {
    for (int slice = 0; slice < slices; ++slice, ++pipe.slice) {
      wait_full();
      start(sums, slice != 0);
      if (slice == 0) continue;
      hopper::products_wait<1>();
      hopper::hold(sums);
      release(pipe.slice - 1);
    }
    hopper::products_wait<0>();
    hopper::hold(sums);
    release(pipe.slice - 1);
  }

  // A slice is one block of scales: its products are scaled before they are added. While one warpgroup does so the
  // other's products run.
  __device__ __forceinline__ void add_scaled_slices(const GroupTile& tile, int slices) {
    const float* const weights = op.b_scales + (tile.group * op.n + tile.first_column) / 128 * slices;
    const int64_t low = row_of(tile, 0), high = row_of(tile, 1);
#pragma unroll
    for (int i = 0; i < kTiles * 4; ++i) sums[i / 4][i % 4] = 0;
    for (int slice = 0; slice < slices; ++slice, ++pipe.slice) {
      const float weight = weights[slice];
      const float low_scale = low < tile.end_row ? op.a_scales[low * slices + slice] * weight : 0.0F;
      const float high_scale = high < tile.end_row ? op.a_scales[high * slices + slice] * weight : 0.0F;
      float part[kTiles][4];
      wait_full();
      start(part, false);
      hopper::products_wait<0>();
      hopper::hold(part);
      release(pipe.slice);
#pragma unroll
      for (int i = 0; i < kTiles * 4; ++i)
        sums[i / 4][i % 4] += part[i / 4][i % 4] * (i % 4 < 2 ? low_scale : high_scale);
    }
  }

  __device__ __forceinline__ void write(const GroupTile& tile) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = row_of(tile, half);
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
        write_pair(op, tile, row, tile.first_column + t * 8 + lane_index() % 4 * 2, sums[t][2 * half],
                   sums[t][2 * half + 1]);
    }
  }

  __device__ __forceinline__ void run() {
    const auto slices = static_cast<int>((op.row_bytes + kSliceBytes - 1) / kSliceBytes);
    GroupWalk walk;
    GroupTile tile = {};
    for (int64_t number = blockIdx.x; find_tile<kRows, S::kColumns>(op, number, walk, tile); number += gridDim.x) {
      if constexpr (kBlockScales)
        add_scaled_slices(tile, slices);
      else
        add_slices(slices);
      write(tile);
    }
  }
};

#endif  // DRYDOCK_SM90A

template <bool kFp8, bool kBlockScales>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_kernel_sm90(const GroupedOperands op, const __grid_constant__ Maps maps) {
#if DRYDOCK_SM90A
  DRYDOCK_DYNAMIC_SHARED(shared);
  Pipeline<kBlockScales> pipe(shared);
  pipe.init();
  dependency_wait();
  const int warpgroup = static_cast<int>(threadIdx.x) / kGroupThreads;
  if (warpgroup == 0) {
    hopper::give_registers<40>();
    if (threadIdx.x == 0) produce<kBlockScales>(op, maps, pipe, kFp8 ? 1 : 2);
  } else {
    hopper::take_registers<232>();
    Consumer<kFp8, kBlockScales> consumer{op, pipe, warpgroup - 1};
    consumer.run();
  }
  dependency_launch();
#endif
}

// A matrix in boxes of `rows` rows of 128 bytes.
CUtensorMap map_of(const Matrix& matrix, int rows, const char* what) {
  const int64_t bytes = element_bytes(matrix);
  const cuuint64_t extents[2] = {static_cast<cuuint64_t>(matrix.cols), static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(matrix.stride * bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(kSliceBytes / bytes), static_cast<cuuint32_t>(rows)};
  return tensor_map(bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, matrix.data,
                    extents, strides, box, what);
}

template <bool kFp8, bool kBlockScales>
void start(const GroupedGemm& gemm, Stream stream) {
  using S = Shape<kBlockScales>;
  const GroupedOperands op = grouped_operands(gemm);
  const Maps maps{map_of(gemm.a, kRows, "the rows of a grouped product"),
                  map_of(gemm.b, S::kColumns, "the weights of a grouped product")};
  const int64_t across = (op.n + S::kColumns - 1) / S::kColumns;
  const int64_t most_tiles = (op.rows / kRows + std::min(op.groups, op.rows)) * across;
  const LaunchShape shape{.grid_x = static_cast<unsigned>(std::clamp<int64_t>(most_tiles, 1, multiprocessors())),
                          .threads = kThreads,
                          .shared_bytes = S::kSharedBytes,
                          .programmatic = true};
  launch(grouped_kernel_sm90<kFp8, kBlockScales>, shape, stream, op, maps);
}

}  // namespace

bool can_group_sm90(const GroupedGemm& op) {
  if (!is_known_product(op.a, op.b, op.out) || !has_whole_pieces(op.a) || !has_whole_pieces(op.b)) return false;
  if (op.a.scaling == Scaling::block && op.out.cols % 128 != 0) return false;
  return op.a.cols > 0 && op.b.rows <= INT32_MAX && compute_capability() == 90;
}

void grouped_gemm_sm90(const GroupedGemm& op, Stream stream) {
  if (op.a.rows <= 0 || op.groups <= 0 || op.out.cols <= 0) return;
  if (!can_group_sm90(op))
    throw core::Error(
        "grouped_gemm: wgmma and TMA need sm_90a, rows of whole 16 bytes, and n of whole blocks of scales");
  if (op.a.dtype == core::Dtype::bf16) return start<false, false>(op, stream);
  if (op.a.scaling == Scaling::block) return start<true, true>(op, stream);
  start<true, false>(op, stream);
}

}  // namespace drydock::kernels::cuda
