#include "runtime/cuda/cuda_kernels.h"

#include <algorithm>

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/small_gemm.h"
#include "kernels/cuda/small_ops.h"
#include "kernels/cuda/take_drawn.h"

namespace drydock::runtime::cuda {
namespace {

namespace device = kernels::cuda;

constexpr size_t kCounterBytes = device::kCounters * sizeof(uint32_t);
static_assert(kCounterBytes % 256 == 0, "what follows the counters is aligned to 256");

// `counter_bytes` of zeros, then `bytes`.
bool grow(DeviceBuffer& memory, size_t bytes, size_t counter_bytes, device::Stream stream) {
  if (memory.size() > 0 && memory.size() >= counter_bytes + bytes) return false;
  check(cudaStreamSynchronize(stream), "a step");  // one that is under way uses it
  memory = DeviceBuffer();                         // frees first
  memory = DeviceBuffer(counter_bytes + bytes);
  check(cudaMemsetAsync(memory.data(), 0, counter_bytes, stream), "zeroing counters");
  return true;
}

}  // namespace

void CudaKernels::begin_measuring() {
  measuring_ = true;
  needed_ = {};
}

bool CudaKernels::reserve() {
  measuring_ = false;
  // Attention counts its counters among the bytes it needs.
  constexpr size_t kCounted = device::kAttentionCounterBytes;
  bool changed = grow(attention_, std::max(needed_.attention_bytes, kCounted) - kCounted, kCounted, stream_);
  changed |= grow(gemm_, needed_.gemm_bytes, kCounterBytes, stream_);
  changed |= grow(permute_, needed_.permute_bytes, kCounterBytes, stream_);
  if (needed_.gather_bytes > 0) changed |= grow(gather_, needed_.gather_bytes, 0, stream_);
  return changed;
}

device::Workspace CudaKernels::workspace(const DeviceBuffer& memory) const {
  return {reinterpret_cast<uint32_t*>(memory.data()), memory.data() + kCounterBytes, memory.size() - kCounterBytes};
}

void CudaKernels::gemm(const kernels::Gemm& op) {
  const bool small = device::fits_small_gemm(op);
  if (measuring_) {
    if (small) needed_.gemm_bytes = std::max(needed_.gemm_bytes, device::small_gemm_workspace_bytes(op));
  } else if (small) {
    device::small_gemm(op, workspace(gemm_), stream_);
  } else {
    cublas_.run(op, stream_);
  }
}

void CudaKernels::grouped_gemm(const kernels::GroupedGemm& op) {
  if (!measuring_) device::grouped_gemm(op, stream_);
}

void CudaKernels::decode_attention(const kernels::DecodeAttention& op) {
  if (measuring_)
    needed_.attention_bytes = std::max(needed_.attention_bytes, device::decode_workspace_bytes(op));
  else
    device::decode_attention(op, {attention_.data(), attention_.size()}, stream_);
}

void CudaKernels::prefill_attention(const kernels::PrefillAttention& op) {
  if (!measuring_) device::prefill_attention(op, stream_);
}
void CudaKernels::route(const kernels::Route& op) {
  if (!measuring_) device::route(op, stream_);
}
void CudaKernels::permute(const kernels::Permute& op) {
  if (measuring_)
    needed_.permute_bytes = std::max(needed_.permute_bytes, device::permute_workspace_bytes(op));
  else
    device::permute(op, workspace(permute_), stream_);
}
void CudaKernels::gather(const kernels::Gather& op) {
  if (!measuring_) device::gather(op, stream_);
}
void CudaKernels::combine(const kernels::Combine& op) {
  if (!measuring_) device::combine(op, stream_);
}
void CudaKernels::add_rms_norm(const kernels::AddRmsNorm& op) {
  if (!measuring_) device::add_rms_norm(op, stream_);
}
void CudaKernels::silu_mul(const kernels::SiluMul& op) {
  if (!measuring_) device::silu_mul(op, stream_);
}
void CudaKernels::rope_append(const kernels::RopeAppend& op) {
  if (!measuring_) device::rope_append(op, stream_);
}
void CudaKernels::embed(const kernels::Embed& op) {
  if (!measuring_) device::embed(op, stream_);
}
void CudaKernels::sample(const kernels::Sample& op) {
  if (!measuring_) device::sample(op, stream_);
}
void CudaKernels::take_drawn(const kernels::TakeDrawn& op) {
  if (!measuring_) device::take_drawn(op, stream_);
}
void CudaKernels::all_reduce(const kernels::Matrix& matrix) {
  if (!measuring_ && group_ != nullptr)
    group_->all_reduce(matrix.data, matrix.data, matrix.rows * matrix.cols, matrix.dtype, stream_);
}

// NCCL puts one rank's rows below the other's; columns beside each other are what is wanted, the same only for one row.
void CudaKernels::all_gather(const kernels::Matrix& own, const kernels::Matrix& whole) {
  const auto ranks = static_cast<size_t>(whole.cols / own.cols), rows = static_cast<size_t>(own.rows);
  const size_t part = static_cast<size_t>(own.cols) * (own.dtype == core::Dtype::fp32 ? 4 : 2);
  if (measuring_) {
    if (rows > 1) needed_.gather_bytes = std::max(needed_.gather_bytes, ranks * rows * part);
    return;
  }
  void* const below = rows > 1 ? gather_.data() : whole.data;
  group_->all_gather(own.data, below, own.rows * own.cols, own.dtype, stream_);
  for (size_t r = 0; rows > 1 && r < ranks; ++r)
    check(cudaMemcpy2DAsync(static_cast<std::byte*>(whole.data) + r * part, ranks * part,
                            gather_.data() + r * rows * part, part, part, rows, cudaMemcpyDeviceToDevice, stream_),
          "gathering the ranks' parts");
}

}  // namespace drydock::runtime::cuda
