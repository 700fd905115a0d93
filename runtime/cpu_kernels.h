#pragma once
// The kernels of this machine's processors.
#include "kernels/cpu.h"
#include "kernels/shared_group.h"
#include "runtime/forward.h"

namespace drydock::runtime {

class CpuKernels : public KernelSet {
 public:
  // `group`: of a tensor-parallel rank; null: one rank.
  explicit CpuKernels(kernels::cpu::Threads& threads, kernels::cpu::SharedGroup* group = nullptr)
      : threads_(threads), group_(group) {}
  void gemm(const kernels::Gemm& op) override { kernels::cpu::gemm(op, threads_); }
  void grouped_gemm(const kernels::GroupedGemm& op) override { kernels::cpu::grouped_gemm(op, threads_); }
  void decode_attention(const kernels::DecodeAttention& op) override { kernels::cpu::decode_attention(op, threads_); }
  void prefill_attention(const kernels::PrefillAttention& op) override {
    kernels::cpu::prefill_attention(op, threads_);
  }
  void route(const kernels::Route& op) override { kernels::cpu::route(op, threads_); }
  void permute(const kernels::Permute& op) override { kernels::cpu::permute(op); }
  void gather(const kernels::Gather& op) override { kernels::cpu::gather(op, threads_); }
  void combine(const kernels::Combine& op) override { kernels::cpu::combine(op, threads_); }
  void add_rms_norm(const kernels::AddRmsNorm& op) override { kernels::cpu::add_rms_norm(op, threads_); }
  void silu_mul(const kernels::SiluMul& op) override { kernels::cpu::silu_mul(op, threads_); }
  void rope_append(const kernels::RopeAppend& op) override { kernels::cpu::rope_append(op, threads_); }
  void embed(const kernels::Embed& op) override { kernels::cpu::embed(op, threads_); }
  void sample(const kernels::Sample& op) override { kernels::cpu::sample(op, threads_); }
  void take_drawn(const kernels::TakeDrawn& op) override { kernels::cpu::take_drawn(op); }
  void all_reduce(const kernels::Matrix& matrix) override {
    if (group_ != nullptr) group_->all_reduce(matrix, threads_);
  }
  void all_gather(const kernels::Matrix& own, const kernels::Matrix& whole) override {
    kernels::Matrix out = whole;
    if (group_->rank() > 0) out.data = nullptr;
    group_->all_gather(own, out, threads_);
  }

 private:
  kernels::cpu::Threads& threads_;
  kernels::cpu::SharedGroup* group_;
};

}  // namespace drydock::runtime
