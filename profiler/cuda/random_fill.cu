#include <algorithm>

#include "kernels/cuda/simt.h"
#include "kernels/cuda/simt_numbers.h"
#include "kernels/philox.h"
#include "profiler/cuda/random_fill.h"

namespace drydock::profiler::cuda {
namespace {

using kernels::PhiloxBlock;

constexpr int kThreads = 256;

// In (-1, 1), from the 24 bits that a float holds.
__device__ float number(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-23F - (1 - 0x1p-24F); }

struct Fp32 {
  __device__ static uint32_t word(uint32_t bits) { return __float_as_uint(number(bits)); }
};
struct TwoBf16 {
  __device__ static uint32_t word(uint32_t bits) {
    const uint32_t low = kernels::cuda::to_bf16(number(bits << 16)).bits;
    return low | static_cast<uint32_t>(kernels::cuda::to_bf16(number(bits & 0xffff0000U)).bits) << 16;
  }
};
struct FourFp8 {
  __device__ static uint32_t word(uint32_t bits) {
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i)
      out |= static_cast<uint32_t>(kernels::cuda::to_fp8(number(bits << (24 - 8 * i) & 0xff000000U)).bits) << (8 * i);
    return out;
  }
};

template <typename Format>
__global__ void fill_kernel(uint4* to, int64_t count, uint32_t key0, uint32_t key1) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const PhiloxBlock counter = {{static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), 0, 0}};
    const PhiloxBlock random = kernels::philox(counter, key0, key1);
    to[i] = make_uint4(Format::word(random.word[0]), Format::word(random.word[1]), Format::word(random.word[2]),
                       Format::word(random.word[3]));
  }
}

}  // namespace

void fill_random(void* to, core::Dtype dtype, int64_t bytes, uint64_t seed, kernels::cuda::Stream stream) {
  constexpr int64_t kMostBlocks = 4096;
  const int64_t count = bytes / static_cast<int64_t>(sizeof(uint4));
  if (count <= 0) return;
  const auto kernel = dtype == core::Dtype::fp32   ? fill_kernel<Fp32>
                      : dtype == core::Dtype::bf16 ? fill_kernel<TwoBf16>
                                                   : fill_kernel<FourFp8>;
  const kernels::cuda::LaunchShape shape{
      .grid_x = static_cast<unsigned>(std::min((count + kThreads - 1) / kThreads, kMostBlocks)), .threads = kThreads};
  kernels::cuda::launch(kernel, shape, stream, static_cast<uint4*>(to), count, static_cast<uint32_t>(seed),
                        static_cast<uint32_t>(seed >> 32));
}

bool has_machine_code() {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, fill_kernel<Fp32>);
  cudaGetLastError();  // a failure is the answer
  return status == cudaSuccess;
}

}  // namespace drydock::profiler::cuda
