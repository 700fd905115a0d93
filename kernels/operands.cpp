#include "kernels/operands.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/element.h"
#include "kernels/isa.h"

namespace drydock::kernels::cpu {
namespace {

constexpr int64_t kBlock = 128;

int64_t blocks(int64_t cols) { return (cols + kBlock - 1) / kBlock; }

// A piece of a row under one fresh scale; a piece of zeros has scale 0 and elements 0.
float narrow_fresh(const float* in, int64_t count, void* out) {
  const float scale = isa().largest_magnitude(in, count) / kLargestFp8;
  isa().narrow(in, count, scale > 0 ? scale : 1, core::Dtype::fp8, out);
  return scale;
}

}  // namespace

void require(bool holds, std::string_view kernel, std::string_view rule) {
  if (!holds) throw core::Error(std::string(kernel) + ": " + std::string(rule));
}

void check(const Matrix& m, std::string_view kernel, std::string_view name) {
  const auto fail = [&](const char* rule) { throw core::Error(std::string(kernel) + ": " + std::string(name) + rule); };
  if (m.dtype != core::Dtype::fp32 && m.dtype != core::Dtype::bf16 && m.dtype != core::Dtype::fp8)
    fail(" has to be fp32, bf16 or fp8");
  if (m.rows < 0 || m.cols < 0 || m.stride < m.cols) fail(" needs extents of 0 or more and a stride of at least cols");
  if (m.data == nullptr && m.rows > 0 && m.cols > 0) fail(" has no memory");
  if (m.scaling != Scaling::none && m.dtype != core::Dtype::fp8) fail(" is scaled, which only fp8 is");
}

int64_t element_bytes(core::Dtype dtype) {
  if (dtype == core::Dtype::fp32) return 4;
  return dtype == core::Dtype::bf16 ? 2 : 1;
}

void widen_row(const Matrix& m, int64_t r, float* out) {
  const void* from = row(m, r);
  if (m.scaling != Scaling::block) {
    const float scale = m.scaling == Scaling::none ? 1 : m.scales[m.scaling == Scaling::row ? r : 0];
    return isa().widen(from, m.dtype, m.cols, scale, out);
  }
  for (int64_t c = 0; c < m.cols; c += kBlock)
    isa().widen(at(from, m.dtype, c), m.dtype, std::min(kBlock, m.cols - c), m.scales[r * blocks(m.cols) + c / kBlock],
                out + c);
}

void narrow_row(const float* in, const Matrix& m, int64_t r, float* scales) {
  void* to = row(m, r);
  if (m.dtype != core::Dtype::fp8) return isa().narrow(in, m.cols, 1, m.dtype, to);
  if (m.scaling == Scaling::row) {
    scales[r] = narrow_fresh(in, m.cols, to);
    return;
  }
  for (int64_t c = 0; c < m.cols; c += kBlock)
    scales[r * blocks(m.cols) + c / kBlock] = narrow_fresh(in + c, std::min(kBlock, m.cols - c), at(to, m.dtype, c));
}

}  // namespace drydock::kernels::cpu
