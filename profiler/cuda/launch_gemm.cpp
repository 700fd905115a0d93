#include "core/error.h"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/small_gemm.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/operands.h"

namespace drydock::profiler::cuda {
namespace {

using core::Op;
using kernels::Gemm;
using kernels::Matrix;

struct GemmState {
  GemmState(const Op& op, Bench& bench)
      : memory(bench.memory()),
        a(activations(*memory, op.dtype, op.shape[0], op.shape[2], scaling_of(op.dtype))),
        out(activations(*memory, core::Dtype::bf16, op.shape[0], op.shape[1])),
        b(weights(*memory, op.dtype, op.shape[1], op.shape[2], scaling_of(op.dtype))) {}
  Gemm at(int64_t turn) const { return {a, b.at(turn), out}; }

  std::shared_ptr<Memory> memory;
  Matrix a, out;
  Weights b;
  kernels::cuda::Workspace scratch;
};

// What cuBLASLt's own quick look finds fastest; empty when it has nothing for such a product.
std::vector<kernels::cuda::TimedAlgorithm> algorithms(const Gemm& op, Bench& bench) {
  constexpr int kTried = 16, kRepeats = 5;
  kernels::cuda::CublasGemm& cublas = bench.cublas();
  try {
    return cublas.measure(op, bench.lane().stream, kTried, kRepeats);
  } catch (const core::Error&) {
    // A kernel that failed leaves the device unusable, which is another matter than having none.
    check(cudaStreamSynchronize(bench.lane().stream), "a product by cuBLASLt");
    return {};
  }
}

void add_cublas(const std::shared_ptr<GemmState>& state, Bench& bench, std::vector<Candidate>& out) {
  constexpr size_t kKept = 3;
  const auto timed = algorithms(state->at(0), bench);
  for (size_t i = 0; i < std::min(kKept, timed.size()); ++i) {
    // The whole name is the way to get this one again (kernels/cuda/gemm.h).
    Candidate one{"cublasLt " + timed[i].algorithm, {bench.lane()}, {}, state->b.copies.copies, state};
    one.launch = [state, &bench, algorithm = timed[i].algorithm](int64_t turn) {
      bench.cublas().run(state->at(turn), bench.lane().stream, algorithm);
    };
    out.push_back(std::move(one));
  }
}

}  // namespace

std::vector<Candidate> gemm_candidates(const Op& op, Bench& bench) {
  const auto state = std::make_shared<GemmState>(op, bench);
  const kernels::cuda::Stream stream = bench.lane().stream;
  std::vector<Candidate> out;
  if (kernels::cuda::fits_small_gemm(state->at(0))) {
    state->scratch = workspace(*state->memory, kernels::cuda::small_gemm_workspace_bytes(state->at(0)));
    out.push_back({"small_gemm", {bench.lane()}, {}, state->b.copies.copies, state});
    out.back().launch = [state, stream](int64_t turn) {
      kernels::cuda::small_gemm(state->at(turn), state->scratch, stream);
    };
  }
  const size_t own = out.size();
  add_cublas(state, bench, out);
  if (out.size() > own) return out;
  out.push_back({"tiled_gemm", {bench.lane()}, {}, state->b.copies.copies, state});
  out.back().launch = [state, stream](int64_t turn) { kernels::cuda::tiled_gemm(state->at(turn), stream); };
  return out;
}

std::vector<Candidate> batched_gemm_candidates(const Op& op, Bench& bench) {
  struct State {
    std::shared_ptr<Memory> memory;
    Matrix a, out;
    Weights b;
    std::vector<int32_t> host_starts;
    const int32_t* starts;
    kernels::GroupedGemm at(int64_t turn) const {
      const auto groups = static_cast<int64_t>(host_starts.size()) - 1;
      return {a, b.at(turn), out, starts, groups, host_starts.data()};
    }
  };
  const int64_t m = op.shape[0], n = op.shape[1], k = op.shape[2], heads = op.shape[3];
  const auto memory = bench.memory();
  std::vector<int32_t> starts;
  for (int64_t head = 0; head <= heads; ++head) starts.push_back(static_cast<int32_t>(head * m));
  const auto scaling = scaling_of(op.dtype);
  const auto state =
      std::make_shared<State>(State{memory, activations(*memory, op.dtype, m * heads, k, scaling),
                                    activations(*memory, core::Dtype::bf16, m * heads, n),
                                    weights(*memory, op.dtype, n * heads, k, scaling, heads), starts, nullptr});
  state->starts = memory->put(starts);
  std::vector<Candidate> out;
  for (const std::string& way : bench.grouped().ways(state->at(0))) {
    out.push_back({way, {bench.lane()}, {}, state->b.copies.copies, state});
    out.back().launch = [state, &bench, way](int64_t turn) {
      bench.grouped().run(state->at(turn), bench.lane().stream, way);
    };
    out.back().needs_host = kernels::cuda::GroupedProducts::needs_host(way);
  }
  return out;
}

}  // namespace drydock::profiler::cuda
