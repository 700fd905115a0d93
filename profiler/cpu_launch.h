#pragma once
// An op as calls of this host's kernels, its inputs in place.
#include <functional>
#include <optional>
#include <string>

#include "core/op.h"
#include "kernels/threads.h"

namespace drydock::profiler {

// Runs the op once. What a model keeps for long (weights, KV cache) is another copy with each `turn`, so that it comes
// from memory as it does in a model; activations stay, as the kernel before has just written them.
using Launch = std::function<void(int64_t turn)>;

// Why this host has no kernels for `op`, one line; nullopt: it has.
std::optional<std::string> why_no_launch(const core::Op& op);

// Bytes that its inputs take.
double launch_bytes(const core::Op& op);

// `why_no_launch(op)` must be empty; `threads` must outlive the launch. Throws std::bad_alloc.
//   gemm, batched_gemm   the GEMM, or one group a head
//   moe                  experts drawn evenly; permute, gather, two grouped GEMMs around SiLU, combine
//   attention            paged, 32 tokens a block, blocks in random order; mla_prefill's keys and values are contiguous
//                        activations; sparse_mla picks one token of each four of a sequence
//   gated_delta, mamba2  with the states of all sequences from memory
//   elementwise          by its bytes: as many read as written, add + RMSNorm; half written, SiLU x up; 4 written,
//                        sampling of a vocabulary; few written, the router's softmax and top-k
Launch make_launch(const core::Op& op, kernels::cpu::Threads& threads);

// The kernels it calls and the instruction set they use: "gemm avx512", "permute+gather+... avx2".
std::string launch_kernel(const core::Op& op);

}  // namespace drydock::profiler
