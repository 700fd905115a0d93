#include "profiler/cuda/operands.h"

#include <algorithm>
#include <numeric>

#include "core/random.h"
#include "profiler/cuda/plan.h"

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using kernels::Matrix;
using kernels::Scaling;

constexpr int64_t kScaleBlock = 128;  // kernels/matrix.h

int64_t blocks_of(int64_t extent) { return (extent + kScaleBlock - 1) / kScaleBlock; }

const float* ones(Memory& memory, int64_t count) {
  return memory.put(std::vector<float>(static_cast<size_t>(count), 1.0F));
}

}  // namespace

bool is_fp8(Dtype dtype) { return dtype == Dtype::fp8 || dtype == Dtype::fp8_block; }
int64_t width(Dtype dtype) { return is_fp8(dtype) ? 1 : dtype == Dtype::fp32 ? 4 : 2; }
Dtype stored(Dtype dtype) { return is_fp8(dtype) ? Dtype::fp8 : dtype; }

Scaling scaling_of(Dtype dtype) {
  if (dtype == Dtype::fp8_block) return Scaling::block;
  return dtype == Dtype::fp8 ? Scaling::tensor : Scaling::none;
}

Matrix activations(Memory& memory, Dtype dtype, int64_t rows, int64_t cols, Scaling scaling) {
  Matrix out{
      memory.random(stored(dtype), rows * cols * width(dtype)), stored(dtype), rows, cols, cols, nullptr, scaling};
  if (scaling == Scaling::tensor) out.scales = ones(memory, 1);
  if (scaling == Scaling::row) out.scales = ones(memory, rows);
  if (scaling == Scaling::block) out.scales = ones(memory, rows * blocks_of(cols));
  return out;
}

Weights weights(Memory& memory, Dtype dtype, int64_t rows, int64_t cols, Scaling scaling, int64_t groups) {
  Weights out;
  out.copies = memory.rotation(stored(dtype), rows * cols * width(dtype));
  out.matrix = {nullptr, stored(dtype), rows, cols, cols, nullptr, scaling};
  if (scaling == Scaling::tensor) out.matrix.scales = ones(memory, 1);
  if (scaling == Scaling::row) out.matrix.scales = ones(memory, rows);
  if (scaling == Scaling::block) out.matrix.scales = ones(memory, groups * blocks_of(rows / groups) * blocks_of(cols));
  return out;
}

Pages pages(Memory& memory, Dtype dtype, int64_t batch, int64_t tokens, int64_t row_bytes) {
  Pages out;
  out.per_sequence = (tokens + kBlockTokens - 1) / kBlockTokens;
  out.pool = memory.rotation(stored(dtype), batch * out.per_sequence * kBlockTokens * row_bytes);
  std::vector<int32_t> blocks(static_cast<size_t>(batch * out.per_sequence));
  std::iota(blocks.begin(), blocks.end(), 0);
  core::Random random(13);
  for (size_t i = blocks.size(); i-- > 1;)
    std::swap(blocks[i], blocks[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i)))]);
  out.blocks = memory.put(blocks);
  out.contexts = memory.put(std::vector<int32_t>(static_cast<size_t>(batch), static_cast<int32_t>(tokens)));
  return out;
}

kernels::cuda::Workspace workspace(Memory& memory, size_t bytes) {
  kernels::cuda::Workspace out;
  out.counters = static_cast<uint32_t*>(memory.zeros(kernels::cuda::kCounters * sizeof(uint32_t)));
  out.bytes = memory.zeros(static_cast<int64_t>(bytes));
  out.size = bytes;
  return out;
}

kernels::cuda::AttentionWorkspace attention_workspace(Memory& memory, size_t bytes) {
  if (bytes == 0) return {};
  return {memory.zeros(static_cast<int64_t>(bytes)), bytes};
}

}  // namespace drydock::profiler::cuda
