#include "profiler/cpu_launch.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "core/random.h"
#include "kernels/cpu.h"
#include "profiler/cpu_launch_attention.h"
#include "profiler/cpu_launch_recurrent.h"
#include "profiler/cpu_operands.h"

namespace drydock::profiler {
namespace {

using core::Dtype;
using core::Op;
using core::OpKind;
using kernels::Matrix;
using kernels::cpu::Threads;

Launch gemm(const Op& op, Threads& threads) {
  struct State {
    Owned a, out;
    Weights b;
  };
  const auto& s = op.shape;
  const Dtype act = activation(op.dtype);
  const auto state =
      std::make_shared<State>(State{Owned(act, s[0], s[2]), Owned(act, s[0], s[1]), Weights(op.dtype, s[1], s[2])});
  return [state, &threads](int64_t turn) {
    kernels::cpu::gemm({state->a.matrix, state->b.at(turn), state->out.matrix}, threads);
  };
}

Launch batched_gemm(const Op& op, Threads& threads) {
  struct State {
    Owned a, out;
    Weights b;
    std::vector<int32_t> starts;
  };
  const auto& s = op.shape;
  const int64_t rows = s[0] * s[3];
  const Dtype act = activation(op.dtype);
  const auto state = std::make_shared<State>(
      State{Owned(act, rows, s[2]), Owned(act, rows, s[1]), Weights(op.dtype, s[1] * s[3], s[2]), {}});
  for (int64_t head = 0; head <= s[3]; ++head) state->starts.push_back(static_cast<int32_t>(head * s[0]));
  return [state, &threads, heads = s[3]](int64_t turn) {
    kernels::cpu::grouped_gemm({state->a.matrix, state->b.at(turn), state->out.matrix, state->starts.data(), heads},
                               threads);
  };
}

// `top_k` different experts for each token, all alike likely.
std::vector<int32_t> random_experts(int64_t tokens, int64_t top_k, int64_t experts) {
  core::Random random(11);
  std::vector<int32_t> all(static_cast<size_t>(experts)), out;
  std::iota(all.begin(), all.end(), 0);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < top_k; ++c) {
      std::swap(all[static_cast<size_t>(c)], all[static_cast<size_t>(random.integer(c, experts - 1))]);
      out.push_back(all[static_cast<size_t>(c)]);
    }
  return out;
}

struct MoeState {
  MoeState(const Op& op, int64_t pairs)
      : tokens(op.shape[0]),
        top_k(op.shape[4]),
        experts(op.shape[3]),
        local(op.shape[3] / op.shape[5]),
        inter(op.shape[2]),
        in(activation(op.dtype), tokens, op.shape[1]),
        gathered(activation(op.dtype), pairs, op.shape[1]),
        wide(activation(op.dtype), pairs, 2 * inter),
        act(activation(op.dtype), pairs, inter),
        down(activation(op.dtype), pairs, op.shape[1]),
        out(activation(op.dtype), tokens, op.shape[1]),
        up_weights(op.dtype, local * 2 * inter, op.shape[1]),
        down_weights(op.dtype, local * op.shape[1], inter),
        chosen(random_experts(tokens, top_k, experts)),
        weights(chosen.size(), 1.0F / static_cast<float>(top_k)),
        starts(static_cast<size_t>(local + 1)),
        sources(chosen.size()),
        rows(chosen.size()) {}

  void run(int64_t turn, Threads& threads) {
    kernels::cpu::permute({chosen.data(), tokens, top_k, 0, local, starts.data(), sources.data(), rows.data()});
    kernels::cpu::gather({in.matrix, gathered.matrix, sources.data(), &starts.back(), top_k}, threads);
    kernels::cpu::grouped_gemm({gathered.matrix, up_weights.at(turn), wide.matrix, starts.data(), local}, threads);
    Matrix up = wide.matrix, half = act.matrix;
    up.rows = half.rows = starts.back();  // pairs of other ranks' experts have no row
    kernels::cpu::silu_mul({up, half, nullptr}, threads);
    kernels::cpu::grouped_gemm({act.matrix, down_weights.at(turn), down.matrix, starts.data(), local}, threads);
    kernels::cpu::combine({down.matrix, out.matrix, rows.data(), weights.data(), top_k}, threads);
  }

  int64_t tokens, top_k, experts, local, inter;
  Owned in, gathered, wide, act, down, out;
  Weights up_weights, down_weights;
  std::vector<int32_t> chosen;
  std::vector<float> weights;
  std::vector<int32_t> starts, sources, rows;
};

Launch moe(const Op& op, Threads& threads) {
  const auto state = std::make_shared<MoeState>(op, op.shape[0] * op.shape[4]);
  return [state, &threads](int64_t turn) { state->run(turn, threads); };
}

Launch norm(int64_t tokens, int64_t hidden, Threads& threads) {
  struct State {
    Owned x, residual, out, weight;
  };
  const auto state =
      std::make_shared<State>(State{Owned(Dtype::bf16, tokens, hidden), Owned(Dtype::bf16, tokens, hidden),
                                    Owned(Dtype::bf16, tokens, hidden), Owned(Dtype::bf16, 1, hidden)});
  return [state, &threads](int64_t) {
    kernels::AddRmsNorm n;
    n.x = state->x.matrix;
    n.residual = state->residual.matrix;
    n.weight = state->weight.memory.data();
    n.out = state->out.matrix;
    kernels::cpu::add_rms_norm(n, threads);
  };
}

Launch silu(int64_t tokens, int64_t wide, Threads& threads) {
  struct State {
    Owned x, out;
  };
  const auto state =
      std::make_shared<State>(State{Owned(Dtype::bf16, tokens, 2 * wide), Owned(Dtype::bf16, tokens, wide)});
  return [state, &threads](int64_t) { kernels::cpu::silu_mul({state->x.matrix, state->out.matrix, nullptr}, threads); };
}

Launch sampling(int64_t rows, int64_t vocabulary, Threads& threads) {
  struct State {
    Owned logits;
    std::vector<float> temperatures, top_p;
    std::vector<int32_t> top_k, tokens;
    std::vector<uint64_t> seeds, counters;
  };
  const auto n = static_cast<size_t>(rows);
  const auto state = std::make_shared<State>(
      State{Owned(Dtype::fp32, rows, vocabulary), std::vector<float>(n, 1.0F), std::vector<float>(n, 1.0F),
            std::vector<int32_t>(n), std::vector<int32_t>(n), std::vector<uint64_t>(n, 1), std::vector<uint64_t>(n)});
  return [state, &threads](int64_t turn) {
    std::fill(state->counters.begin(), state->counters.end(), static_cast<uint64_t>(turn));
    kernels::cpu::sample({state->logits.matrix, state->temperatures.data(), state->top_k.data(), state->top_p.data(),
                          state->seeds.data(), state->counters.data(), state->tokens.data()},
                         threads);
  };
}

Launch routing(int64_t tokens, int64_t experts, int64_t top_k, Threads& threads) {
  struct State {
    Owned logits;
    std::vector<int32_t> chosen;
    std::vector<float> weights;
  };
  const auto pairs = static_cast<size_t>(tokens * top_k);
  const auto state = std::make_shared<State>(
      State{Owned(Dtype::fp32, tokens, experts), std::vector<int32_t>(pairs), std::vector<float>(pairs)});
  return [state, &threads, top_k](int64_t) {
    kernels::cpu::route({state->logits.matrix, state->chosen.data(), state->weights.data(), top_k, true}, threads);
  };
}

enum class Pass : uint8_t { sampling, norm, routing, silu };

// What models/lowering.cpp means by so many bytes; see the header.
Pass pass_of(const Op& op) {
  const int64_t read = op.shape[1], written = op.shape[2];
  if (written == 4) return Pass::sampling;
  if (written >= read) return Pass::norm;
  const int64_t experts = read / 4, top_k = written / 8;
  return 2 * written < read && top_k >= 1 && top_k <= experts ? Pass::routing : Pass::silu;
}

Launch elementwise(const Op& op, Threads& threads) {
  const int64_t tokens = op.shape[0], read = op.shape[1], written = op.shape[2];
  switch (pass_of(op)) {
    case Pass::sampling:
      return sampling(tokens, std::max<int64_t>(read / 8, 1), threads);
    case Pass::norm:
      return norm(tokens, std::max<int64_t>(written / 4, 1), threads);
    case Pass::routing:
      return routing(tokens, read / 4, written / 8, threads);
    default:
      return silu(tokens, std::max<int64_t>(written / 2, 1), threads);
  }
}

const char* name(Pass pass) {
  switch (pass) {
    case Pass::sampling:
      return "sample";
    case Pass::norm:
      return "add_rms_norm";
    case Pass::routing:
      return "route";
    default:
      return "silu_mul";
  }
}

std::optional<std::string> format_reason(const Op& op) {
  const auto known = [](Dtype dtype) { return dtype == Dtype::bf16 || dtype == Dtype::fp32 || is_fp8(dtype); };
  if (!known(op.dtype)) return "no CPU kernel for weights in " + std::string(core::name(op.dtype));
  if (!known(op.kv_dtype)) return "no CPU kernel for a KV cache in " + std::string(core::name(op.kv_dtype));
  const bool latents = op.kind == OpKind::mla_decode || op.kind == OpKind::sparse_mla;
  if (latents && is_fp8(op.kv_dtype)) return "no CPU kernel for MLA over a cache in fp8";
  if (op.kind == OpKind::index_score && !is_fp8(op.dtype)) return "no CPU kernel for an indexer but in fp8";
  if (op.kind == OpKind::index_score && op.shape[1] > op.shape[2]) return "more new tokens than the context has";
  const bool delta = op.kind == OpKind::gated_delta;
  const int64_t heads = op.shape[delta ? 3 : 2], sharing = op.shape[delta ? 2 : 5];
  if ((delta || op.kind == OpKind::mamba2) && heads % sharing != 0)
    return std::to_string(heads) + " heads share " + std::to_string(sharing) + " keys: not a whole number";
  return std::nullopt;
}

}  // namespace

std::optional<std::string> why_no_launch(const Op& op) {
  constexpr int64_t kMostRows = INT32_MAX;  // of the contracts' index types
  if (core::is_communication(op.kind)) return "one host is one rank: nothing to exchange";
  switch (op.kind) {
    case OpKind::gemm:
    case OpKind::batched_gemm:
    case OpKind::moe:
    case OpKind::prefill_attention:
    case OpKind::decode_attention:
    case OpKind::mla_decode:
    case OpKind::mla_prefill:
    case OpKind::sparse_mla:
    case OpKind::index_score:
    case OpKind::gated_delta:
    case OpKind::mamba2:
    case OpKind::elementwise:
      break;
    default:
      return "no CPU kernel for " + std::string(core::name(op.kind));
  }
  for (const int64_t extent : op.shape)
    if (extent > kMostRows || extent < 0) return "an extent of " + std::to_string(extent) + " is absurd";
  return format_reason(op);
}

double launch_bytes(const Op& op) {
  // Activations once more for scratch; what rotates takes eight times the cache at least.
  return 2 * core::bytes(op) + static_cast<double>(9 * last_level_cache_bytes()) +
         (op.kind == OpKind::moe ? 6.0 * static_cast<double>(op.shape[3] / op.shape[5]) *
                                       static_cast<double>(op.shape[1]) * static_cast<double>(op.shape[2])
                                 : 0);
}

std::string launch_kernel(const Op& op) {
  std::string out{core::name(op.kind)};
  if (op.kind == OpKind::elementwise) out = name(pass_of(op));
  if (op.kind == OpKind::batched_gemm) out = "grouped_gemm";
  if (op.kind == OpKind::moe) out = "permute+gather+grouped_gemm+silu_mul+grouped_gemm+combine";
  return out + " " + kernels::cpu::instruction_set();
}

Launch make_launch(const Op& op, Threads& threads) {
  switch (op.kind) {
    case OpKind::gemm:
      return gemm(op, threads);
    case OpKind::batched_gemm:
      return batched_gemm(op, threads);
    case OpKind::moe:
      return moe(op, threads);
    case OpKind::prefill_attention:
      return launch_prefill_attention(op, threads);
    case OpKind::decode_attention:
      return launch_decode_attention(op, threads);
    case OpKind::mla_decode:
      return launch_mla_decode(op, threads);
    case OpKind::mla_prefill:
      return launch_mla_prefill(op, threads);
    case OpKind::sparse_mla:
      return launch_sparse_mla(op, threads);
    case OpKind::index_score:
      return launch_index_score(op, threads);
    case OpKind::gated_delta:
      return launch_gated_delta(op, threads);
    case OpKind::mamba2:
      return launch_mamba2(op, threads);
    default:
      return elementwise(op, threads);
  }
}

}  // namespace drydock::profiler
