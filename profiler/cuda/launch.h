#pragma once
// An op as launches of the CUDA kernels, its inputs in place.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/op.h"
#include "kernels/cuda/collective.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/grouped_products.h"
#include "profiler/cuda/memory.h"
#include "profiler/cuda/plan.h"
#include "profiler/cuda/replay.h"

namespace drydock::profiler::cuda {

// GPUs that exchange messages, the one that is measured first.
struct PeerGroup {
  std::vector<Lane> lanes;
  std::vector<kernels::cuda::Communicator> communicators;
};

// What outlives an experiment.
class Bench {
 public:
  Bench(int device, const Gpu& gpu);
  ~Bench();
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  const Lane& lane() const { return lanes_.front(); }
  const Gpu& gpu() const { return gpu_; }
  std::shared_ptr<Memory> memory() const;
  kernels::cuda::CublasGemm& cublas();
  kernels::cuda::GroupedProducts& grouped() { return grouped_; }
  // Of `ranks` GPUs; made by NCCL when first asked for, which takes seconds.
  PeerGroup& peers(int64_t ranks);

 private:
  Lane lane_on(int64_t offset);
  Gpu gpu_;
  std::vector<Lane> lanes_;
  std::unique_ptr<kernels::cuda::CublasGemm> cublas_;
  kernels::cuda::GroupedProducts grouped_;
  std::map<int64_t, PeerGroup> groups_;
};

// One way to run the op.
struct Candidate {
  std::string kernel;  // "cublasLt 13.0.2 #0", "small_gemm"
  std::vector<Lane> lanes;
  Launch launch;
  int64_t copies = 1;                 // of its rotation
  std::shared_ptr<const void> keeps;  // operands
  // The host has a part in it, which a graph would leave out: it is timed launch by launch, what the GPU waits
  // included.
  bool needs_host = false;
};

// At least one; several where kernels compete, of which the fastest is the answer. why_no_kernel(op) must be empty.
// Throws core::Error when memory or a library fails.
//   gemm           small_gemm up to 16 rows, the three fastest algorithms of cuBLASLt, tiled_gemm where it has none
//   batched_gemm   a group to each head, in every way of kernels/cuda/grouped_products.h
//   moe            experts drawn evenly; permute, gather, two grouped GEMMs around SiLU, combine, in every way of
//                  grouped products. The router is an op of its own (elementwise). fp8: activations by row (or block)
//                  from SiLU's own quantization
//   attention, recurrent mixers: as profiler/cpu_launch.h
//   elementwise    by its bytes, as profiler/cpu_launch.h: norm, SiLU, sampling, or the router's softmax and top-k
//   communication  NCCL on as many GPUs, and peer_all_reduce beside it; moe_dispatch packs rows first, moe_combine adds
//                  them up last
std::vector<Candidate> make_candidates(const core::Op& op, Bench& bench);

std::vector<Candidate> gemm_candidates(const core::Op& op, Bench& bench);
std::vector<Candidate> batched_gemm_candidates(const core::Op& op, Bench& bench);
std::vector<Candidate> moe_candidates(const core::Op& op, Bench& bench);
Candidate decode_candidate(const core::Op& op, Bench& bench);
Candidate prefill_candidate(const core::Op& op, Bench& bench);
Candidate mla_candidate(const core::Op& op, Bench& bench);
Candidate mla_prefill_candidate(const core::Op& op, Bench& bench);
Candidate sparse_mla_candidate(const core::Op& op, Bench& bench);
Candidate index_score_candidate(const core::Op& op, Bench& bench);
Candidate gated_delta_candidate(const core::Op& op, Bench& bench);
Candidate mamba2_candidate(const core::Op& op, Bench& bench);
Candidate elementwise_candidate(const core::Op& op, Bench& bench);
std::vector<Candidate> communication_candidates(const core::Op& op, Bench& bench);
// nullopt where GPUs don't reach each other's memory, or there are more than the kernel knows.
std::optional<Candidate> peer_all_reduce_candidate(const core::Op& op, Bench& bench);
Candidate expert_exchange_candidate(const core::Op& op, Bench& bench);

}  // namespace drydock::profiler::cuda
