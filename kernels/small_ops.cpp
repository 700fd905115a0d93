#include "kernels/small_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/block_copy.h"
#include "kernels/cpu.h"
#include "kernels/isa.h"
#include "kernels/operands.h"
#include "kernels/scratch.h"

namespace drydock::kernels::cpu {
namespace {

enum SmallOpScratch { kFirst = 16, kSecond, kWeight };

void check_out(const Matrix& out, const float* scales, int64_t rows, int64_t cols, const char* kernel) {
  check(out, kernel, "out");
  require(out.rows == rows && out.cols == cols, kernel, "out has to have the rows and columns of what is computed");
  if (out.dtype != core::Dtype::fp8) return;
  require(out.scaling == Scaling::row || out.scaling == Scaling::block, kernel, "fp8 is scaled by row or block");
  require(scales != nullptr, kernel, "fp8 needs out_scales");
}

void norm_row(const AddRmsNorm& op, int64_t t, const float* weight) {
  const int64_t hidden = op.residual.cols;
  float* sum = scratch<kFirst>(hidden);
  float* other = scratch<kSecond>(hidden);
  widen_row(op.residual, t, sum);
  if (op.x.data != nullptr) {
    widen_row(op.x, t, other);
    isa().add(other, hidden, sum);
    isa().narrow(sum, hidden, 1, op.residual.dtype, row(op.residual, t));
    // What is normed is what was stored.
    if (op.residual.dtype != core::Dtype::fp32) widen_row(op.residual, t, sum);
  }
  const float mean = isa().sum_squares(sum, hidden) / static_cast<float>(hidden);
  isa().multiply_scaled(sum, weight, 1 / std::sqrt(mean + op.epsilon), hidden, other);
  narrow_row(other, op.out, t, op.out_scales);
}

// Sines and cosines in double: a position of 100 000 leaves an angle in fp32 five digits short.
void angles(const RopeAppend& op, int64_t token, float* cosines, float* sines) {
  for (int64_t i = 0; i < op.kv.head_dim / 2; ++i) {
    const double angle = double{op.inverse_frequencies[i]} * op.positions[token];
    cosines[i] = static_cast<float>(std::cos(angle));
    sines[i] = static_cast<float>(std::sin(angle));
  }
}

void rotate(float* x, int64_t half, const float* cosines, const float* sines) {
  for (int64_t i = 0; i < half; ++i) {
    const float low = x[i], high = x[i + half];
    x[i] = low * cosines[i] - high * sines[i];
    x[i + half] = high * cosines[i] + low * sines[i];
  }
}

void norm_heads(const RopeAppend& op, float* x) {
  const int64_t dim = op.kv.head_dim;
  float* weights = scratch<kWeight>(2 * dim);
  isa().widen(op.q_norm, op.dtype, dim, 1, weights);
  isa().widen(op.k_norm, op.dtype, dim, 1, weights + dim);
  for (int64_t h = 0; h < op.heads + op.kv.kv_heads; ++h, x += dim) {
    const float mean = isa().sum_squares(x, dim) / static_cast<float>(dim);
    isa().multiply_scaled(x, h < op.heads ? weights : weights + dim, 1 / std::sqrt(mean + op.epsilon), dim, x);
  }
}

void rope_row(const RopeAppend& op, int64_t t) {
  const PagedKv& kv = op.kv;
  const int64_t dim = kv.head_dim, rotated = op.heads + kv.kv_heads, count = (rotated + kv.kv_heads) * dim;
  float* x = scratch<kFirst>(count);
  float* cosines = scratch<kSecond>(dim);
  void* stored = at(op.qkv, op.dtype, t * count);
  isa().widen(stored, op.dtype, count, 1, x);
  angles(op, t, cosines, cosines + dim / 2);
  if (op.q_norm != nullptr) norm_heads(op, x);
  for (int64_t h = 0; h < rotated; ++h) rotate(x + h * dim, dim / 2, cosines, cosines + dim / 2);
  if (op.q != nullptr)
    isa().narrow(x, op.heads * dim, 1, op.dtype, at(op.q, op.dtype, t * op.heads * dim));
  else
    isa().narrow(x, rotated * dim, 1, op.dtype, stored);
  const int64_t block = kv.blocks[op.sequences[t] * kv.blocks_per_sequence + op.positions[t] / kv.block_tokens];
  const int64_t slot = (block * kv.block_tokens + op.positions[t] % kv.block_tokens) * kv.kv_heads * dim;
  isa().narrow(x + op.heads * dim, kv.kv_heads * dim, kv.k_scale, kv.dtype, at(kv.k, kv.dtype, slot));
  isa().narrow(x + rotated * dim, kv.kv_heads * dim, kv.v_scale, kv.dtype, at(kv.v, kv.dtype, slot));
}

template <typename Copy>
void copy_blocks(const BlockCopy& op, Threads& threads, Copy&& copy) {
  threads.parallel_for(op.count, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      copy(static_cast<char*>(op.pool) + op.blocks[i] * op.block_bytes,
           static_cast<char*>(op.buffer) + i * op.block_bytes, static_cast<size_t>(op.block_bytes));
  });
}

}  // namespace

void add_rms_norm(const AddRmsNorm& op, Threads& threads) {
  check(op.residual, "add_rms_norm", "residual");
  require(op.residual.dtype != core::Dtype::fp8, "add_rms_norm", "residual has to be fp32 or bf16");
  check_out(op.out, op.out_scales, op.residual.rows, op.residual.cols, "add_rms_norm");
  require(op.x.data == nullptr || (op.x.rows == op.residual.rows && op.x.cols == op.residual.cols), "add_rms_norm",
          "x has to have the extents of residual");
  threads.parallel_for(op.residual.rows, [&](int64_t begin, int64_t end) {
    float* weight = scratch<kWeight>(op.residual.cols);
    isa().widen(op.weight, op.residual.dtype, op.residual.cols, 1, weight);
    for (int64_t t = begin; t < end; ++t) norm_row(op, t, weight);
  });
}

void silu_mul(const SiluMul& op, Threads& threads) {
  check(op.x, "silu_mul", "x");
  const int64_t width = op.x.cols / 2;
  check_out(op.out, op.out_scales, op.x.rows, width, "silu_mul");
  threads.parallel_for(op.x.rows, [&](int64_t begin, int64_t end) {
    float* x = scratch<kFirst>(op.x.cols);
    float* out = scratch<kSecond>(width);
    for (int64_t t = begin; t < end; ++t) {
      widen_row(op.x, t, x);
      isa().silu_multiply(x, x + width, width, out);
      narrow_row(out, op.out, t, op.out_scales);
    }
  });
}

void quantize(const Quantize& op, Threads& threads) {
  check(op.x, "quantize", "x");
  require(op.out.dtype == core::Dtype::fp8, "quantize", "out has to be fp8");
  check_out(op.out, op.out_scales, op.x.rows, op.x.cols, "quantize");
  threads.parallel_for(op.x.rows, [&](int64_t begin, int64_t end) {
    float* x = scratch<kFirst>(op.x.cols);
    for (int64_t t = begin; t < end; ++t) {
      widen_row(op.x, t, x);
      narrow_row(x, op.out, t, op.out_scales);
    }
  });
}

void rope_append(const RopeAppend& op, Threads& threads) {
  require(op.dtype == core::Dtype::fp32 || op.dtype == core::Dtype::bf16, "rope_append", "qkv has to be fp32 or bf16");
  require(op.kv.head_dim > 0 && op.kv.head_dim % 2 == 0, "rope_append", "head_dim has to be even");
  require(op.kv.block_tokens > 0, "rope_append", "block_tokens has to be above 0");
  require((op.q_norm == nullptr) == (op.k_norm == nullptr), "rope_append", "q and k are normed both or not at all");
  threads.parallel_for(op.tokens, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) rope_row(op, t);
  });
}

void embed(const Embed& op, Threads& threads) {
  check(op.table, "embed", "table");
  check(op.out, "embed", "out");
  require(op.out.cols == op.table.cols, "embed", "out has to be as wide as the table");
  require(op.out.dtype != core::Dtype::fp8, "embed", "out has to be fp32 or bf16");
  threads.parallel_for(op.out.rows, [&](int64_t begin, int64_t end) {
    float* x = scratch<kFirst>(op.out.cols);
    for (int64_t t = begin; t < end; ++t) {
      if (op.ids[t] >= 0 && op.ids[t] < op.table.rows)
        widen_row(op.table, op.ids[t], x);
      else
        std::fill(x, x + op.out.cols, 0.0F);
      narrow_row(x, op.out, t, nullptr);
    }
  });
}

void gather_blocks(const BlockCopy& op, Threads& threads) {
  copy_blocks(op, threads, [](const char* pool, char* buffer, size_t bytes) { std::memcpy(buffer, pool, bytes); });
}

void scatter_blocks(const BlockCopy& op, Threads& threads) {
  copy_blocks(op, threads, [](char* pool, const char* buffer, size_t bytes) { std::memcpy(pool, buffer, bytes); });
}

}  // namespace drydock::kernels::cpu
