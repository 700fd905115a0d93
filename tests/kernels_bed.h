#pragma once
// Operands of kernels in any storage format, outputs poisoned with NaN, and their comparison with a reference.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/convert.h"
#include "kernels/cpu.h"
#include "kernels/matrix.h"
#include "kernels/reference.h"

namespace drydock::tests {

using core::Dtype;

inline int64_t size_of(Dtype dtype) { return dtype == Dtype::fp32 ? 4 : dtype == Dtype::bf16 ? 2 : 1; }

// Elements in memory. Every byte of poison is 0xFF: NaN in all three formats, -1 as an integer.
struct Numbers {
  Dtype dtype = Dtype::fp32;
  std::vector<unsigned char> bytes;

  Numbers() = default;
  Numbers(Dtype type, int64_t count) : dtype(type), bytes(static_cast<size_t>(count * size_of(type)), 0xFF) {}
  void* data() { return bytes.data(); }
  int64_t count() const { return static_cast<int64_t>(bytes.size()) / size_of(dtype); }
  double operator[](int64_t i) const { return kernels::reference::element(bytes.data(), dtype, i); }
};

// Uniform in [-1, 1], rounded to the format.
inline Numbers random_numbers(core::Random& random, Dtype dtype, int64_t count) {
  std::vector<float> wide(static_cast<size_t>(count));
  for (float& x : wide) x = static_cast<float>(2 * random.uniform() - 1);
  Numbers out(dtype, count);
  kernels::narrow(wide.data(), count, 1, dtype, out.data());
  return out;
}

inline std::vector<float> random_scales(core::Random& random, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) x = static_cast<float>(0.5 + 0.5 * random.uniform());
  return out;
}

// A matrix over the numbers.
inline kernels::Matrix matrix(Numbers& numbers, int64_t rows, int64_t cols, int64_t stride = 0) {
  return {numbers.data(), numbers.dtype, rows, cols, stride > 0 ? stride : cols, nullptr, kernels::Scaling::none};
}

// Empty if got(rows, cols) is within absolute + relative * |want| of want everywhere and, of poison, nothing beyond
// `cols` was written; else where it is not. NaN is never within.
inline std::string mismatch(const Numbers& got, const std::vector<double>& want, int64_t cols, double absolute,
                            double relative, int64_t stride = 0) {
  if (stride == 0) stride = cols;
  const int64_t rows = cols > 0 ? static_cast<int64_t>(want.size()) / cols : 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const double g = got[r * stride + c], w = want[r * cols + c];
      if (!(std::abs(g - w) <= absolute + relative * std::abs(w)))
        return "row " + std::to_string(r) + " column " + std::to_string(c) + ": " + std::to_string(g) + ", not " +
               std::to_string(w);
    }
    for (int64_t c = cols; c < stride && r * stride + c < got.count(); ++c)
      if (!std::isnan(got[r * stride + c])) return "row " + std::to_string(r) + ": written beyond its end";
  }
  return "";
}

// The instruction sets this processor has, each in use while its name is visited; the best again at the end.
template <typename Body>
void on_each_instruction_set(Body&& body) {
  const std::string best = kernels::cpu::instruction_set();
  for (const char* name : {"baseline", "avx2", "avx512", "avx512bf16"})
    if (kernels::cpu::use_instruction_set(name)) body(name);
  kernels::cpu::use_instruction_set(best);
}

// Half a step between neighbouring numbers, relative.
inline double half_step(Dtype dtype) {
  if (dtype == Dtype::fp32) return 0x1p-24;
  return dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-4;
}

// A paged cache whose blocks lie in any order among others that no sequence uses, which are NaN. `contexts` are the
// tokens filled in of each sequence.
struct PagedCache {
  Numbers k, v;
  std::vector<int32_t> blocks;
  kernels::PagedKv kv;

  PagedCache(core::Random& random, Dtype dtype, const std::vector<int32_t>& contexts, int64_t kv_heads,
             int64_t head_dim, int64_t block_tokens)
      : k(dtype, 0), v(dtype, 0) {
    int64_t most = 1;
    for (const int32_t context : contexts) most = std::max(most, (context + block_tokens - 1) / block_tokens);
    const int64_t used = most * static_cast<int64_t>(contexts.size()), pool = used + 3;
    std::vector<int32_t> order(static_cast<size_t>(pool));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    for (size_t i = order.size(); i-- > 1;) std::swap(order[i], order[random.integer(0, static_cast<int64_t>(i))]);
    blocks.assign(order.begin(), order.begin() + used);
    const int64_t row = kv_heads * head_dim;
    k = v = Numbers(dtype, pool * block_tokens * row);
    for (size_t s = 0; s < contexts.size(); ++s) {
      for (int64_t t = 0; t < contexts[s]; ++t) {
        const int64_t slot = blocks[s * most + t / block_tokens] * block_tokens + t % block_tokens;
        for (Numbers* numbers : {&k, &v}) {
          const Numbers fresh = random_numbers(random, dtype, row);
          std::memcpy(numbers->bytes.data() + slot * row * size_of(dtype), fresh.bytes.data(), fresh.bytes.size());
        }
      }
    }
    const float scale = dtype == Dtype::fp8 ? 0.75F : 1.0F;
    kv = {k.data(), v.data(), dtype, scale, scale / 2, kv_heads, head_dim, block_tokens, blocks.data(), most};
    if (dtype != Dtype::fp8) kv.v_scale = 1;
  }
  PagedCache(const PagedCache&) = delete;
  PagedCache& operator=(const PagedCache&) = delete;
};

}  // namespace drydock::tests
