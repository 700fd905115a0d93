#include "kernels/gemm.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu.h"
#include "kernels/isa.h"
#include "kernels/operands.h"
#include "kernels/scratch.h"

namespace drydock::kernels::cpu {
namespace {

constexpr int64_t kScaleBlock = 128;   // of Scaling::block
constexpr int64_t kFewRows = 8;        // as many as Isa::dots takes at once
constexpr int64_t kMostDots = 16;      // up to here passes of kFewRows beat packing the weights
constexpr int64_t kMostPairDots = 16;  // the same where bf16 is multiplied in pairs
constexpr int64_t kRows = 512;         // of activations packed at a time: the weights are packed anew for each
constexpr int64_t kDepth = 256;        // packed strip of activations (8 KiB) stays in the first cache,
constexpr int64_t kPanels = 4;         // and so many panels of weights (192 KiB) in the second

constexpr int64_t kReusedBytes = 256 << 10;

enum GemmScratch { kActivations, kWeights, kProducts };

// Weights of one product: `rows` rows of `b` from `first` on.
struct Product {
  Matrix a, b;
  int64_t first = 0, n = 0;
  Matrix out;
};

// Both operands stay bf16 and are multiplied two elements at a time.
bool in_pairs(const Product& p) {
  return isa().multiply_pairs != nullptr && p.a.dtype == core::Dtype::bf16 && p.b.dtype == core::Dtype::bf16;
}

// Scales of `count` rows from `first` on, for columns in the 128-block of `column`.
void scales_of(const Matrix& m, bool weights, int64_t first, int64_t count, int64_t column, float* out) {
  const int64_t blocks = (m.cols + kScaleBlock - 1) / kScaleBlock;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t row = first + r;
    if (m.scaling == Scaling::tensor)
      out[r] = m.scales[0];
    else if (m.scaling == Scaling::row)
      out[r] = m.scales[row];
    else
      out[r] = m.scales[(weights ? row / kScaleBlock : row) * blocks + column / kScaleBlock];
  }
}

// Columns [begin, end) of a few rows, packed and scaled; begin is a multiple of kScaleBlock.
void pack(const Matrix& m, bool pairs, bool weights, int64_t first, int64_t count, int64_t begin, int64_t end,
          int64_t width, float* out) {
  if (pairs)
    return isa().pack_pairs({at(m.data, m.dtype, first * m.stride + begin), m.dtype, m.stride, count}, end - begin,
                            width, out);
  float scales[kMostTileCols];
  Rows rows{nullptr, m.dtype, m.stride, count, m.scaling == Scaling::none ? nullptr : scales};
  const int64_t step = m.scaling == Scaling::block ? kScaleBlock : end - begin;
  for (int64_t c = begin; c < end; c += step) {
    if (rows.scales != nullptr) scales_of(m, weights, first, count, c, scales);
    rows.data = at(m.data, m.dtype, first * m.stride + c);
    isa().pack(rows, std::min(step, end - c), width, out + (c - begin) * width);
  }
}

// ---- few rows: the weights stream past all of them once -----------------------------------------------------------

Dots dots_of(const Product& p, const float* a, int64_t row, int64_t count) {
  Dots dots{.a = a, .a_stride = padded(p.a.cols), .m = count, .k = p.a.cols};
  dots.weights = at(p.b.data, p.b.dtype, p.first * p.b.stride);
  dots.dtype = p.b.dtype, dots.stride = p.b.stride;
  dots.scales = p.b.scaling == Scaling::none ? nullptr : p.b.scales;
  dots.scale_rows = p.b.scaling == Scaling::tensor ? std::max<int64_t>(p.b.rows, 1) : 1;
  if (p.b.scaling == Scaling::block) dots.scale_rows = dots.scale_cols = kScaleBlock;
  dots.first_row = p.first;
  dots.a += row * dots.a_stride;
  return dots;
}

// Activations as PairDots has them, kFewRows at a time: in the order of use, as rows a power of two apart would share
// few lines of the first cache.
const float* interleave(const Matrix& a) {
  const int64_t vectors = (a.cols + kPairLanes - 1) / kPairLanes;
  float* out = scratch<kActivations>(a.rows * vectors * kPairLanes / 2);
  auto* to = reinterpret_cast<char*>(out);
  for (int64_t first = 0; first < a.rows; first += kFewRows) {
    for (int64_t c = 0; c < a.cols; c += kPairLanes) {
      for (int64_t i = first; i < std::min(first + kFewRows, a.rows); ++i, to += kPairLanes * 2) {
        const int64_t count = std::min(kPairLanes, a.cols - c);
        std::memcpy(to, at(row(a, i), a.dtype, c), static_cast<size_t>(count) * 2);
        std::memset(to + count * 2, 0, static_cast<size_t>(kPairLanes - count) * 2);
      }
    }
  }
  return out;
}

PairDots pair_dots_of(const Product& p, const float* a, int64_t row, int64_t count) {
  PairDots dots{.m = count, .k = p.a.cols, .stride = p.b.stride};
  dots.a = a + row * ((p.a.cols + kPairLanes - 1) / kPairLanes * kPairLanes / 2);
  dots.weights = static_cast<const uint16_t*>(cpu::row(p.b, p.first));
  return dots;
}

const float* widen(const Matrix& a) {
  const int64_t stride = padded(a.cols);
  float* out = scratch<kActivations>(a.rows * stride);
  for (int64_t i = 0; i < a.rows; ++i) {
    widen_row(a, i, out + i * stride);
    std::fill(out + i * stride + a.cols, out + (i + 1) * stride, 0.0F);
  }
  return out;
}

void multiply_few(const Product& p, Threads& threads) {
  const int64_t m = p.a.rows;
  const bool pairs = in_pairs(p);
  const float* a = pairs ? interleave(p.a) : widen(p.a);
  const bool direct = p.out.dtype == core::Dtype::fp32;
  float* products = direct ? static_cast<float*>(p.out.data) : scratch<kProducts>(m * p.n);
  const int64_t out_stride = direct ? p.out.stride : p.n;
  // Weights that the next pass over the activations finds in the cache.
  const int64_t chunk = std::max<int64_t>(kReusedBytes / (p.a.cols * element_bytes(p.b.dtype)) / 4 * 4, 4);
  threads.parallel_for(p.n, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += chunk) {
      for (int64_t i = 0; i < m; i += kFewRows) {
        const int64_t count = std::min(kFewRows, m - i), last = std::min(j + chunk, end);
        const auto into_products = [&](auto dots) {
          dots.out = products + i * out_stride, dots.out_stride = out_stride;
          return dots;
        };
        if (pairs)
          isa().dot_pairs(into_products(pair_dots_of(p, a, i, count)), j, last);
        else
          isa().dots(into_products(dots_of(p, a, i, count)), j, last);
      }
    }
    for (int64_t i = 0; i < m && !direct; ++i)
      isa().narrow(products + i * p.n + begin, end - begin, 1, p.out.dtype,
                   at(p.out.data, p.out.dtype, i * p.out.stride + begin));
  });
}

// ---- many rows: both operands packed into tiles that fit the caches -----------------------------------------------

// Rows [row, row + rows) of the activations, all columns: strip after strip of (packed_depth, tile_rows).
struct PackedRows {
  int64_t row = 0, rows = 0, strips = 0;
  const float* data = nullptr;
};

// Depth of packed operands, and how many columns each step of it is.
int64_t step_cols(const Product& p) { return in_pairs(p) ? 2 : 1; }
int64_t packed_depth(const Product& p) { return (p.a.cols + step_cols(p) - 1) / step_cols(p); }

PackedRows pack_activations(const Product& p, int64_t row, Threads& threads) {
  const int64_t height = isa().tile_rows, k = packed_depth(p), rows = std::min(kRows, p.a.rows - row);
  const bool pairs = in_pairs(p);
  const PackedRows packed{row, rows, (rows + height - 1) / height, nullptr};
  float* data = scratch<kActivations>(packed.strips * height * k);
  threads.parallel_for(packed.strips, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s)
      pack(p.a, pairs, false, row + s * height, std::min(height, rows - s * height), 0, p.a.cols, height,
           data + s * height * k);
  });
  return {row, rows, packed.strips, data};
}

// Strips [first_strip, last_strip) times panels [panel, panel + panels).
void multiply_panels(const Product& p, const PackedRows& a, int64_t first_strip, int64_t last_strip, int64_t panel,
                     int64_t panels) {
  const Isa& isa = cpu::isa();
  const int64_t height = isa.tile_rows, width = isa.tile_cols, k = packed_depth(p), each = step_cols(p);
  const auto multiply = in_pairs(p) ? isa.multiply_pairs : isa.multiply;
  float* b = scratch<kWeights>(kPanels * width * kDepth);
  const int64_t stride = panels * width, first_row = first_strip * height;
  float* c = scratch<kProducts>(kRows * kPanels * width);
  for (int64_t depth = 0; depth < k; depth += kDepth) {
    const int64_t steps = std::min(kDepth, k - depth);
    for (int64_t j = 0; j < panels; ++j) {
      const int64_t column = (panel + j) * width;
      pack(p.b, in_pairs(p), true, p.first + column, std::min(width, p.n - column), depth * each,
           std::min((depth + steps) * each, p.a.cols), width, b + j * width * kDepth);
    }
    for (int64_t s = first_strip; s < last_strip; ++s) {
      const int64_t rows = std::min(height, a.rows - s * height);
      for (int64_t j = 0; j < panels; ++j)
        multiply(rows, steps, a.data + (s * k + depth) * height, b + j * width * kDepth,
                 c + (s * height - first_row) * stride + j * width, stride, depth > 0);
    }
  }
  const int64_t column = panel * width, cols = std::min(stride, p.n - column);
  for (int64_t i = first_row; i < std::min(a.rows, last_strip * height); ++i)
    isa.narrow(c + (i - first_row) * stride, cols, 1, p.out.dtype,
               at(p.out.data, p.out.dtype, (a.row + i) * p.out.stride + column));
}

// Threads share the panels, and the strips too where panels are fewer than threads.
void multiply_many(const Product& p, Threads& threads) {
  const int64_t panels = (p.n + isa().tile_cols - 1) / isa().tile_cols;
  for (int64_t row = 0; row < p.a.rows; row += kRows) {
    const PackedRows a = pack_activations(p, row, threads);
    const int64_t parts = std::clamp<int64_t>((threads.size() + panels - 1) / panels, 1, a.strips);
    threads.parallel_for(parts * panels, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end;) {
        const int64_t part = tile / panels, panel = tile % panels;
        const int64_t count = std::min({kPanels, panels - panel, end - tile});
        multiply_panels(p, a, a.strips * part / parts, a.strips * (part + 1) / parts, panel, count);
        tile += count;
      }
    });
  }
}

void multiply(const Product& p, Threads& threads) {
  if (p.a.rows == 0 || p.n == 0) return;
  if (p.a.cols == 0) {
    for (int64_t i = 0; i < p.a.rows; ++i)
      std::memset(row(p.out, i), 0, static_cast<size_t>(p.n * element_bytes(p.out.dtype)));
  } else if (p.a.rows <= (in_pairs(p) ? kMostPairDots : kMostDots)) {
    multiply_few(p, threads);
  } else {
    multiply_many(p, threads);
  }
}

// Rows [first, first + count), their scales included.
Matrix rows_of(Matrix m, int64_t first, int64_t count) {
  m.data = row(m, first);
  m.rows = count;
  if (m.scaling == Scaling::row) m.scales += first;
  if (m.scaling == Scaling::block) m.scales += first * ((m.cols + kScaleBlock - 1) / kScaleBlock);
  return m;
}

void check_gemm(const Matrix& a, const Matrix& b, const Matrix& out, const char* kernel) {
  cpu::check(a, kernel, "a");
  cpu::check(b, kernel, "b");
  cpu::check(out, kernel, "out");
  require(a.cols == b.cols && a.rows == out.rows, kernel, "a is (m, k), b (n, k) and out (m, n)");
  require(out.dtype != core::Dtype::fp8, kernel, "out has to be fp32 or bf16");
}

}  // namespace

void gemm(const Gemm& op, Threads& threads) {
  check_gemm(op.a, op.b, op.out, "gemm");
  require(op.b.rows == op.out.cols, "gemm", "b has to have as many rows as out has columns");
  multiply({op.a, op.b, 0, op.b.rows, op.out}, threads);
}

void grouped_gemm(const GroupedGemm& op, Threads& threads) {
  check_gemm(op.a, op.b, op.out, "grouped_gemm");
  const int64_t n = op.out.cols;
  require(op.b.rows == op.groups * n, "grouped_gemm", "b has to have groups * n rows");
  for (int64_t g = 0; g < op.groups; ++g) {
    const int64_t first = op.starts[g], count = op.starts[g + 1] - first;
    require(first >= 0 && count >= 0 && first + count <= op.a.rows, "grouped_gemm", "starts have to rise within a");
    if (count > 0) multiply({rows_of(op.a, first, count), op.b, g * n, n, rows_of(op.out, first, count)}, threads);
  }
}

}  // namespace drydock::kernels::cpu
