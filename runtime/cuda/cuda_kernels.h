#pragma once
// The kernels of one GPU, enqueued on one stream.
#include <memory>

#include "kernels/cuda/attention_workspace.h"
#include "kernels/cuda/collective.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/workspace.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/forward.h"

namespace drydock::runtime::cuda {

// What the kernels need besides their operands. Kernels of one stream share it, one after another.
struct KernelWorkspaces {
  size_t attention_bytes = 0, gemm_bytes = 0, permute_bytes = 0, gather_bytes = 0;
};

class CudaKernels : public KernelSet {
 public:
  // `group`: of a tensor-parallel rank; null: one rank.
  CudaKernels(kernels::cuda::Stream stream, kernels::cuda::Communicator* group) : stream_(stream), group_(group) {}

  // Calls are measured instead of launched, until reserve() makes the memory that they all need. True: pointers have
  // changed, so that graphs captured before are of no use; the stream is idle then.
  void begin_measuring();
  bool reserve();

  void gemm(const kernels::Gemm& op) override;
  void grouped_gemm(const kernels::GroupedGemm& op) override;
  void decode_attention(const kernels::DecodeAttention& op) override;
  void prefill_attention(const kernels::PrefillAttention& op) override;
  void route(const kernels::Route& op) override;
  void permute(const kernels::Permute& op) override;
  void gather(const kernels::Gather& op) override;
  void combine(const kernels::Combine& op) override;
  void add_rms_norm(const kernels::AddRmsNorm& op) override;
  void silu_mul(const kernels::SiluMul& op) override;
  void rope_append(const kernels::RopeAppend& op) override;
  void embed(const kernels::Embed& op) override;
  void sample(const kernels::Sample& op) override;
  void take_drawn(const kernels::TakeDrawn& op) override;
  void all_reduce(const kernels::Matrix& matrix) override;
  void all_gather(const kernels::Matrix& own, const kernels::Matrix& whole) override;

 private:
  kernels::cuda::Workspace workspace(const DeviceBuffer& memory) const;

  kernels::cuda::Stream stream_;
  kernels::cuda::Communicator* group_;
  kernels::cuda::CublasGemm cublas_;
  bool measuring_ = false;
  KernelWorkspaces needed_;
  DeviceBuffer attention_, gemm_, permute_;  // each begins with the counters of its kind
  DeviceBuffer gather_;
};

}  // namespace drydock::runtime::cuda
