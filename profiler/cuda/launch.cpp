#include "profiler/cuda/launch.h"

namespace drydock::profiler::cuda {

using core::Op;
using core::OpKind;

Bench::Bench(int device, const Gpu& gpu) : gpu_(gpu) {
  Lane first{device, nullptr};
  check(cudaSetDevice(device), "choosing a device");
  check(cudaStreamCreateWithFlags(&first.stream, cudaStreamNonBlocking), "a stream");
  lanes_.push_back(first);
}

Bench::~Bench() {
  groups_.clear();  // before the streams that they use
  cublas_.reset();
  for (const Lane& used : lanes_) cudaStreamDestroy(used.stream);
}

std::shared_ptr<Memory> Bench::memory() const { return std::make_shared<Memory>(lane(), gpu_.l2_bytes); }

kernels::cuda::CublasGemm& Bench::cublas() {
  if (!cublas_) cublas_ = std::make_unique<kernels::cuda::CublasGemm>();
  return *cublas_;
}

Lane Bench::lane_on(int64_t offset) {
  const auto index = static_cast<size_t>(offset);
  while (lanes_.size() <= index) {
    const auto next = static_cast<int64_t>(lanes_.size());
    Lane more{static_cast<int>((lane().device + next) % gpu_.gpus), nullptr};
    const DeviceScope scope(more.device);
    check(cudaStreamCreateWithFlags(&more.stream, cudaStreamNonBlocking), "a stream");
    lanes_.push_back(more);
  }
  return lanes_[index];
}

PeerGroup& Bench::peers(int64_t ranks) {
  const auto found = groups_.find(ranks);
  if (found != groups_.end()) return found->second;
  PeerGroup group;
  std::vector<int> devices;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    group.lanes.push_back(lane_on(rank));
    devices.push_back(group.lanes.back().device);
  }
  group.communicators = kernels::cuda::Communicator::of_devices(devices);
  return groups_.emplace(ranks, std::move(group)).first->second;
}

std::vector<Candidate> make_candidates(const Op& op, Bench& bench) {
  std::vector<Candidate> out;
  if (op.kind == OpKind::gemm) return gemm_candidates(op, bench);
  if (op.kind == OpKind::batched_gemm) return batched_gemm_candidates(op, bench);
  if (op.kind == OpKind::moe) return moe_candidates(op, bench);
  const bool experts = op.kind == OpKind::moe_dispatch || op.kind == OpKind::moe_combine;
  if (core::is_communication(op.kind) && !experts) return communication_candidates(op, bench);
  const auto one = [&] {
    switch (op.kind) {
      case OpKind::decode_attention:
        return decode_candidate(op, bench);
      case OpKind::prefill_attention:
        return prefill_candidate(op, bench);
      case OpKind::mla_decode:
        return mla_candidate(op, bench);
      case OpKind::mla_prefill:
        return mla_prefill_candidate(op, bench);
      case OpKind::sparse_mla:
        return sparse_mla_candidate(op, bench);
      case OpKind::index_score:
        return index_score_candidate(op, bench);
      case OpKind::gated_delta:
        return gated_delta_candidate(op, bench);
      case OpKind::mamba2:
        return mamba2_candidate(op, bench);
      case OpKind::moe_dispatch:
      case OpKind::moe_combine:
        return expert_exchange_candidate(op, bench);
      default:
        return elementwise_candidate(op, bench);
    }
  };
  out.push_back(one());
  return out;
}

}  // namespace drydock::profiler::cuda
