#include <algorithm>

#include "kernels/cuda/attention_work.h"

namespace drydock::kernels::cuda {
namespace {

constexpr double kNumberBytes = 2;  // of q and out
constexpr int64_t kDecodeTile = 16, kMlaTile = 32;

int64_t rounded_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }
double as_double(int64_t x) { return static_cast<double>(x); }

AttentionWork floors(const core::Op& op) {
  AttentionWork work;
  work.floor_bytes = core::bytes(op);
  work.floor_flops = core::flops(op);
  return work;
}

// Sums and softmax states in fp32, written once and read once.
double partial_bytes(int64_t heads, int64_t splits, int64_t dim) {
  return splits > 1 ? as_double(2 * heads * splits * (dim + 2) * 4) : 0;
}

}  // namespace

AttentionWork decode_work(const core::Op& op, int64_t splits) {
  const auto [batch, context, heads, kv_heads, dim, window, unused] = op.shape;
  const int64_t seen = window > 0 ? std::min(context, window) : context;
  const int64_t units = kv_heads * ((heads / kv_heads + 15) / 16);
  AttentionWork work = floors(op);
  const double cache = as_double(units * seen * 2 * dim) * core::bytes_per_element(op.kv_dtype);
  work.moved_bytes =
      as_double(batch) * (cache + as_double(2 * heads * dim) * kNumberBytes + partial_bytes(heads, splits, dim));
  work.issued_flops = as_double(batch * units * 16 * rounded_up(seen, kDecodeTile) * dim * 4);
  return work;
}

AttentionWork prefill_work(const core::Op& op, PrefillPath path) {
  const auto [batch, fresh, cached, heads, kv_heads, dim, window] = op.shape;
  const PrefillTileShape tile = prefill_tile_shape(static_cast<int>(dim), op.kv_dtype == core::Dtype::fp8, path);
  const int64_t group = heads / kv_heads, rows = fresh * group;
  int64_t read = 0, computed = 0;  // tokens over all tiles of rows
  for (int64_t row = 0; row < rows; row += tile.rows) {
    const int64_t last = cached + std::min(rows - 1, row + tile.rows - 1) / group + 1;
    const int64_t first = window > 0 ? std::max<int64_t>(cached + row / group + 1 - window, 0) : 0;
    // The Hopper path's tiles begin at multiples of their size.
    const int64_t begin = path == PrefillPath::hopper ? first / tile.tokens * tile.tokens : first;
    read += last - first;
    computed += rounded_up(last - begin, tile.tokens);
  }
  AttentionWork work = floors(op);
  const double cache = as_double(kv_heads * read * 2 * dim) * core::bytes_per_element(op.kv_dtype);
  work.moved_bytes = as_double(batch) * (cache + as_double(2 * fresh * heads * dim) * kNumberBytes);
  work.issued_flops = as_double(batch * kv_heads * tile.rows * computed * dim * 4);
  return work;
}

AttentionWork mla_work(const core::Op& op, int64_t splits, int64_t rows) {
  const auto [batch, context, heads, latent, rope, unused, unused_too] = op.shape;
  const int64_t units = (heads + rows - 1) / rows, width = latent + rope;
  AttentionWork work = floors(op);
  const double cache = as_double(units * context * width) * kNumberBytes;
  const double ends = as_double(heads * (width + latent)) * kNumberBytes;
  work.moved_bytes = as_double(batch) * (cache + ends + partial_bytes(heads, splits, latent));
  work.issued_flops = as_double(batch * units * rows * rounded_up(context, kMlaTile) * (width + latent) * 2);
  return work;
}

}  // namespace drydock::kernels::cuda
