#include "kernels/moe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/isa.h"
#include "kernels/operands.h"
#include "kernels/scratch.h"

namespace drydock::kernels::cpu {
namespace {

enum MoeScratch { kMoeFirst = 24, kMoeSecond };

void route_row(const Route& op, int64_t t) {
  const int64_t count = op.logits.cols;
  float* logits = scratch<kMoeFirst>(count);
  float* chances = scratch<kMoeSecond>(count);
  widen_row(op.logits, t, logits);
  for (int64_t e = 0; e < count; ++e)
    if (std::isnan(logits[e])) logits[e] = -INFINITY;
  const float all = isa().exponentials(logits, isa().largest(logits, count), 1, count, chances);
  // top_k is small: insertion into a sorted list, where an equal logit comes after those of lower index.
  int32_t* experts = op.experts + t * op.top_k;
  int64_t held = 0;
  for (int64_t e = 0; e < count; ++e) {
    if (held == op.top_k && !(logits[e] > logits[experts[held - 1]])) continue;
    int64_t place = held < op.top_k ? held++ : held - 1;
    for (; place > 0 && logits[e] > logits[experts[place - 1]]; --place) experts[place] = experts[place - 1];
    experts[place] = static_cast<int32_t>(e);
  }
  float kept = 0;
  for (int64_t c = 0; c < op.top_k; ++c) kept += chances[experts[c]];
  for (int64_t c = 0; c < op.top_k; ++c)
    op.weights[t * op.top_k + c] = chances[experts[c]] / (op.renormalize ? kept : all);
}

}  // namespace

void route(const Route& op, Threads& threads) {
  check(op.logits, "route", "logits");
  require(op.top_k > 0 && op.top_k <= op.logits.cols, "route", "top_k has to be 1 or more and at most the experts");
  threads.parallel_for(op.logits.rows, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) route_row(op, t);
  });
}

void permute(const Permute& op) {
  const int64_t pairs = op.tokens * op.top_k;
  std::fill(op.starts, op.starts + op.local_experts + 1, 0);
  const auto local = [&](int64_t pair) {
    const int64_t expert = op.experts[pair] - op.first_expert;
    return expert >= 0 && expert < op.local_experts ? expert : -1;
  };
  for (int64_t pair = 0; pair < pairs; ++pair)
    if (const int64_t expert = local(pair); expert >= 0) ++op.starts[expert + 1];
  for (int64_t e = 0; e < op.local_experts; ++e) op.starts[e + 1] += op.starts[e];
  std::vector<int32_t> next(op.starts, op.starts + op.local_experts);
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t expert = local(pair);
    op.rows[pair] = expert < 0 ? -1 : next[expert]++;
    if (expert >= 0) op.sources[op.rows[pair]] = static_cast<int32_t>(pair);
  }
}

void gather(const Gather& op, Threads& threads) {
  check(op.in, "gather", "in");
  check(op.out, "gather", "out");
  require(op.in.dtype == op.out.dtype && op.in.cols == op.out.cols, "gather", "in and out have to be alike");
  require(*op.row_count <= op.out.rows, "gather", "out has too few rows");
  const auto bytes = static_cast<size_t>(op.in.cols * element_bytes(op.in.dtype));
  threads.parallel_for(*op.row_count, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::memcpy(row(op.out, r), row(op.in, op.sources[r] / op.top_k), bytes);
  });
}

void combine(const Combine& op, Threads& threads) {
  check(op.in, "combine", "in");
  check(op.out, "combine", "out");
  require(op.in.cols == op.out.cols, "combine", "in and out have to be equally wide");
  require(op.out.dtype != core::Dtype::fp8, "combine", "out has to be fp32 or bf16");
  const int64_t hidden = op.out.cols;
  threads.parallel_for(op.out.rows, [&](int64_t begin, int64_t end) {
    float* sum = scratch<kMoeFirst>(hidden);
    float* part = scratch<kMoeSecond>(hidden);
    for (int64_t t = begin; t < end; ++t) {
      std::fill(sum, sum + hidden, 0.0F);
      for (int64_t pair = t * op.top_k; pair < (t + 1) * op.top_k; ++pair) {
        if (op.rows[pair] < 0) continue;
        widen_row(op.in, op.rows[pair], part);
        isa().add_scaled(part, op.weights[pair], hidden, sum);
      }
      narrow_row(sum, op.out, t, nullptr);
    }
  });
}

}  // namespace drydock::kernels::cpu
