#include "kernels/reference.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "kernels/element.h"
#include "kernels/reference_rows.h"

namespace drydock::kernels::reference {
namespace {

double scale(const Matrix& m, int64_t r, int64_t c) {
  switch (m.scaling) {
    case Scaling::none:
      return 1;
    case Scaling::tensor:
      return m.scales[0];
    case Scaling::row:
      return m.scales[r];
    case Scaling::block:
      break;
  }
  return m.scales[r * ((m.cols + 127) / 128) + c / 128];
}

// Weights have their blocks along both extents.
double weight(const Matrix& b, int64_t r, int64_t c) {
  if (b.scaling != Scaling::block) return element(b, r, c);
  return element(b.data, b.dtype, r * b.stride + c) * b.scales[(r / 128) * ((b.cols + 127) / 128) + c / 128];
}

std::vector<double> row(const Matrix& m, int64_t r) {
  std::vector<double> out(static_cast<size_t>(m.cols));
  for (int64_t c = 0; c < m.cols; ++c) out[c] = element(m, r, c);
  return out;
}

// One row of a product; weights are rows [first, first + n) of b.
void product(const std::vector<double>& a, const Matrix& b, int64_t first, int64_t n, double* out) {
  for (int64_t j = 0; j < n; ++j) {
    double sum = 0;
    for (int64_t c = 0; c < b.cols; ++c) sum += a[c] * weight(b, first + j, c);
    out[j] = sum;
  }
}

double silu(double x) { return x / (1 + std::exp(-x)); }

}  // namespace

double element(const void* data, core::Dtype dtype, int64_t i) {
  switch (dtype) {
    case core::Dtype::fp32:
      return static_cast<const float*>(data)[i];
    case core::Dtype::bf16:
      return to_float(static_cast<const Bf16*>(data)[i]);
    case core::Dtype::fp8:
      return to_float(static_cast<const Fp8*>(data)[i]);
    default:
      throw core::Error("elements of type " + std::string(core::name(dtype)) + ": kernels take fp32, bf16 or fp8");
  }
}

double element(const Matrix& m, int64_t r, int64_t c) {
  return element(m.data, m.dtype, r * m.stride + c) * scale(m, r, c);
}

std::vector<double> elements(const void* data, core::Dtype dtype, int64_t start, int64_t count) {
  std::vector<double> out(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) out[i] = element(data, dtype, start + i);
  return out;
}

double rounded(double number, core::Dtype dtype) {
  const auto narrow = static_cast<float>(number);
  if (dtype == core::Dtype::bf16) return to_float(to_bf16(narrow));
  return dtype == core::Dtype::fp8 ? to_float(to_fp8(narrow)) : narrow;
}

std::vector<double> gemm(const Gemm& op) {
  std::vector<double> out(static_cast<size_t>(op.a.rows * op.b.rows));
  for (int64_t i = 0; i < op.a.rows; ++i) product(row(op.a, i), op.b, 0, op.b.rows, out.data() + i * op.b.rows);
  return out;
}

std::vector<double> grouped_gemm(const GroupedGemm& op) {
  const int64_t n = op.out.cols;
  std::vector<double> out(static_cast<size_t>(op.a.rows * n));
  for (int64_t g = 0; g < op.groups; ++g)
    for (int64_t i = op.starts[g]; i < op.starts[g + 1]; ++i) product(row(op.a, i), op.b, g * n, n, out.data() + i * n);
  return out;
}

Routed route(const Route& op) {
  Routed out;
  const int64_t experts = op.logits.cols;
  for (int64_t t = 0; t < op.logits.rows; ++t) {
    std::vector<double> logits = row(op.logits, t);
    for (double& x : logits)
      if (std::isnan(x)) x = -INFINITY;
    const double top = *std::max_element(logits.begin(), logits.end());
    double all = 0, kept = 0;
    for (const double x : logits) all += std::exp(x - top);
    std::vector<int32_t> order(static_cast<size_t>(experts));
    for (int64_t e = 0; e < experts; ++e) order[e] = static_cast<int32_t>(e);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    for (int64_t c = 0; c < op.top_k; ++c) kept += std::exp(logits[order[c]] - top);
    for (int64_t c = 0; c < op.top_k; ++c) {
      out.experts.push_back(order[c]);
      out.weights.push_back(std::exp(logits[order[c]] - top) / (op.renormalize ? kept : all));
    }
  }
  return out;
}

Permuted permute(const Permute& op) {
  Permuted out;
  const int64_t pairs = op.tokens * op.top_k;
  out.rows.assign(static_cast<size_t>(pairs), -1);
  for (int64_t e = 0; e < op.local_experts; ++e) {
    out.starts.push_back(static_cast<int32_t>(out.sources.size()));
    for (int64_t pair = 0; pair < pairs; ++pair) {
      if (op.experts[pair] != op.first_expert + e) continue;
      out.rows[pair] = static_cast<int32_t>(out.sources.size());
      out.sources.push_back(static_cast<int32_t>(pair));
    }
  }
  out.starts.push_back(static_cast<int32_t>(out.sources.size()));
  return out;
}

std::vector<double> gather(const Gather& op) {
  std::vector<double> out;
  for (int64_t r = 0; r < *op.row_count; ++r)
    for (const double x : row(op.in, op.sources[r] / op.top_k)) out.push_back(x);
  return out;
}

std::vector<double> combine(const Combine& op) {
  const int64_t tokens = op.out.rows, hidden = op.in.cols;
  std::vector<double> out(static_cast<size_t>(tokens * hidden));
  for (int64_t pair = 0; pair < tokens * op.top_k; ++pair) {
    if (op.rows[pair] < 0) continue;
    const std::vector<double> in = row(op.in, op.rows[pair]);
    for (int64_t j = 0; j < hidden; ++j) out[pair / op.top_k * hidden + j] += op.weights[pair] * in[j];
  }
  return out;
}

Normed add_rms_norm(const AddRmsNorm& op) {
  Normed out;
  const int64_t hidden = op.residual.cols;
  for (int64_t t = 0; t < op.residual.rows; ++t) {
    std::vector<double> sum = row(op.residual, t);
    double squares = 0;
    for (int64_t j = 0; j < hidden; ++j) {
      if (op.x.data != nullptr) sum[j] = rounded(sum[j] + element(op.x, t, j), op.residual.dtype);
      squares += sum[j] * sum[j];
    }
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(hidden) + op.epsilon);
    for (int64_t j = 0; j < hidden; ++j) {
      out.residual.push_back(sum[j]);
      out.out.push_back(sum[j] * element(op.weight, op.residual.dtype, j) * inverse);
    }
  }
  return out;
}

std::vector<double> silu_mul(const SiluMul& op) {
  std::vector<double> out;
  const int64_t width = op.x.cols / 2;
  for (int64_t t = 0; t < op.x.rows; ++t)
    for (int64_t j = 0; j < width; ++j) out.push_back(silu(element(op.x, t, j)) * element(op.x, t, width + j));
  return out;
}

std::vector<double> fresh_scales(const std::vector<double>& numbers, int64_t cols, Scaling scaling) {
  std::vector<double> scales;
  const int64_t step = scaling == Scaling::block ? 128 : cols, rows = static_cast<int64_t>(numbers.size()) / cols;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; c += step) {
      double largest = 0;
      for (int64_t i = c; i < std::min(c + step, cols); ++i)
        largest = std::max(largest, std::abs(numbers[r * cols + i]));
      scales.push_back(largest / kLargestFp8);
    }
  }
  return scales;
}

std::vector<double> embed(const Embed& op) {
  std::vector<double> out;
  for (int64_t t = 0; t < op.out.rows; ++t) {
    const bool known = op.ids[t] >= 0 && op.ids[t] < op.table.rows;
    for (int64_t j = 0; j < op.table.cols; ++j) out.push_back(known ? element(op.table, op.ids[t], j) : 0);
  }
  return out;
}

std::vector<double> all_reduce(const std::vector<Matrix>& parts) {
  std::vector<double> out;
  for (int64_t r = 0; r < parts[0].rows; ++r)
    for (int64_t c = 0; c < parts[0].cols; ++c) {
      double sum = 0;
      for (const Matrix& part : parts) sum += element(part, r, c);
      out.push_back(sum);
    }
  return out;
}

std::vector<double> all_gather(const std::vector<Matrix>& parts) {
  std::vector<double> out;
  for (int64_t r = 0; r < parts[0].rows; ++r)
    for (const Matrix& part : parts)
      for (int64_t c = 0; c < part.cols; ++c) out.push_back(element(part, r, c));
  return out;
}

}  // namespace drydock::kernels::reference
