#pragma once
// The inner loops of the CPU kernels, built once per instruction set and chosen when the program starts. Everything
// here works on plain fp32 rows; formats, scales, blocks of the cache and threads are the callers' business.
#include <cstdint>

#include "core/dtype.h"

namespace drydock::kernels::cpu {

// Rows of the packed operands of a product are padded to this many floats at most.
inline constexpr int64_t kMostTileRows = 8, kMostTileCols = 48;
// Rows of `attend` are padded with zeros to multiples of this; no instruction set here has more lanes.
inline constexpr int64_t kPadding = 16;

// Elements of one vector of bf16 on "avx512bf16".
inline constexpr int64_t kPairLanes = 32;

constexpr int64_t padded(int64_t count) { return (count + kPadding - 1) / kPadding * kPadding; }

// A few rows of a matrix and the scale of each.
struct Rows {
  const void* data = nullptr;  // first element of the first row
  core::Dtype dtype = core::Dtype::fp32;
  int64_t stride = 0;  // elements
  int64_t count = 0;
  const float* scales = nullptr;  // (count); null: 1
};

// Products of a few rows of activations with many of weights, each weight read once.
struct Dots {
  const float* a = nullptr;  // (m, a_stride): rows padded with zeros to kPadding
  int64_t a_stride = 0, m = 0, k = 0;
  const void* weights = nullptr;  // (n, stride), n of the call
  core::Dtype dtype = core::Dtype::fp32;
  int64_t stride = 0;             // elements
  const float* scales = nullptr;  // (n / scale_rows, ceil(k / scale_cols)); null: 1
  int64_t scale_rows = 1, scale_cols = 0;
  int64_t first_row = 0;  // row of the scaled matrix that row 0 of `weights` is
  float* out = nullptr;   // (m, out_stride)
  int64_t out_stride = 0;
};

// The same for bf16 with bf16, on processors that multiply them in pairs.
struct PairDots {
  const float* a = nullptr;  // (ceil(k / kPairLanes), m, kPairLanes) elements, two a float, the last ones 0
  int64_t m = 0, k = 0;
  const uint16_t* weights = nullptr;  // (n, stride), n of the call
  int64_t stride = 0;
  float* out = nullptr;  // (m, out_stride)
  int64_t out_stride = 0;
};

// One tile of keys and values taken into a running softmax (Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018). Row r sees tokens [first[r], last[r]) of the tile.
struct Attend {
  const float* q = nullptr;  // (rows, k_dim)
  const float* k = nullptr;  // (tokens rounded up to kPadding, k_stride)
  const float* v = nullptr;  // (tokens, v_stride)
  int64_t k_stride = 0, v_stride = 0;
  int64_t rows = 0, tokens = 0;
  int64_t k_dim = 0, v_dim = 0;  // multiples of kPadding
  const int32_t* first = nullptr;
  const int32_t* last = nullptr;
  float scale = 1;
  float* logits = nullptr;  // (tokens rounded up to kPadding), scratch
  float* top = nullptr;     // (rows): largest logit so far
  float* sum = nullptr;     // (rows): of exp(logit - top)
  float* out = nullptr;     // (rows, v_dim): sum of exp(logit - top) * v
};

// The state of one head of a recurrent mixer (kernels/recurrent.h) over some tokens.
struct Recur {
  const float* k = nullptr;      // (tokens, k_dim)
  const float* q = nullptr;      // (tokens, k_dim)
  const float* v = nullptr;      // (tokens, v_stride)
  const float* decay = nullptr;  // (tokens)
  const float* gain = nullptr;   // (tokens): d = gain (v - [decay S^T k])
  float* state = nullptr;        // (k_dim, state_stride), updated
  float* block = nullptr;        // (k_dim, 2 kPadding), scratch
  float* out = nullptr;          // (tokens, v_stride)
  int64_t tokens = 0, k_dim = 0, v_dim = 0, v_stride = 0, state_stride = 0;
  bool delta = false;  // with what stands in brackets
};

struct Isa {
  const char* name;
  int64_t tile_rows, tile_cols;

  // `count` elements, times `scale`, to fp32, and back: in / divisor to nearest.
  void (*widen)(const void* in, core::Dtype dtype, int64_t count, float scale, float* out);
  void (*narrow)(const float* in, int64_t count, float divisor, core::Dtype dtype, void* out);

  // out[c * width + r] = row r's element c, scaled; 0 for r >= rows.count. width: tile_rows or tile_cols.
  void (*pack)(const Rows& rows, int64_t cols, int64_t width, float* out);
  // c(rows, tile_cols) = a^T b (+ c); a: (k, tile_rows), b: (k, tile_cols), rows <= tile_rows.
  void (*multiply)(int64_t rows, int64_t k, const float* a, const float* b, float* c, int64_t c_stride, bool add);
  // Columns [begin, end) of the product.
  void (*dots)(const Dots& op, int64_t begin, int64_t end);

  void (*attend)(const Attend& op);
  void (*recur)(const Recur& op);

  void (*add)(const float* x, int64_t count, float* sum);                       // sum += x
  void (*add_scaled)(const float* x, float factor, int64_t count, float* sum);  // sum += x * factor
  void (*multiply_scaled)(const float* x, const float* y, float factor, int64_t count, float* out);  // x * factor * y
  void (*silu_multiply)(const float* gate, const float* up, int64_t count, float* out);
  float (*sum_squares)(const float* x, int64_t count);
  float (*largest_magnitude)(const float* x, int64_t count);  // NaN left out
  float (*largest)(const float* x, int64_t count);            // NaN left out; -infinity when there is none
  // out = exp((x - top) * factor), 0 for NaN; the sum is returned.
  float (*exponentials)(const float* x, float top, float factor, int64_t count, float* out);

  // Products of bf16 with bf16 in pairs along the depth; null where the processor has no instructions for them.
  // As `pack`, `multiply` and `dots`, each float of packed operands being the bits of two elements, a last odd one with
  // 0; rows have no scales.
  void (*pack_pairs)(const Rows& rows, int64_t cols, int64_t width, float* out) = nullptr;
  void (*multiply_pairs)(int64_t rows, int64_t pairs, const float* a, const float* b, float* c, int64_t c_stride,
                         bool add) = nullptr;
  void (*dot_pairs)(const PairDots& op, int64_t begin, int64_t end) = nullptr;
};

// The one in use: the best this processor has, or what was chosen.
const Isa& isa();

}  // namespace drydock::kernels::cpu
