#include "kernels/attention_tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/operands.h"
#include "kernels/scratch.h"

namespace drydock::kernels::cpu {
namespace {

constexpr int64_t kMostTile = 32;  // tokens whose keys and values stand in fp32 in the cache at a time
constexpr int64_t kSegment = 512;  // tokens of one task
constexpr int64_t kHeader = 16;    // of a partial result; keeps the rows aligned

enum AttentionScratch { kQueries = 8, kKeys, kValues, kLogits, kOut, kMeasures, kPartials };

const void* token_row(const Cache& cache, int64_t t, int64_t head) {
  const int64_t position = cache.selected != nullptr ? cache.selected[t] : t;
  const int64_t slot =
      cache.blocks != nullptr
          ? int64_t{cache.blocks[position / cache.block_tokens]} * cache.block_tokens + position % cache.block_tokens
          : position;
  return at(cache.data, cache.dtype, slot * cache.token_stride + cache.first_element + head * cache.head_stride);
}

// Sends for the part of the tokens [first, last), all heads of them, that falls to `head`. Every head's turn does its
// part: the rows of one head are short and lie apart, and the processor would not see them coming.
void prefetch(const Cache& cache, int64_t first, int64_t last, int64_t head) {
  const int64_t count = last - first;
  const int64_t bytes = ((cache.heads - 1) * cache.head_stride + cache.width) * element_bytes(cache.dtype);
  for (int64_t t = first + count * head / cache.heads; t < first + count * (head + 1) / cache.heads; ++t) {
    const auto* row = static_cast<const char*>(token_row(cache, t, 0));
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(row + byte);
  }
}

// Tokens [first, last) of one head to rows of padded numbers.
void widen_tokens(const Cache& cache, int64_t first, int64_t last, int64_t head, float* out) {
  const int64_t width = cache.width + cache.tail_width, stride = padded(width);
  for (int64_t t = first; t < last; ++t, out += stride) {
    isa().widen(token_row(cache, t, head), cache.dtype, cache.width, cache.scale, out);
    if (cache.tail != nullptr)
      isa().widen(at(cache.tail, cache.dtype, t * cache.tail_stride), cache.dtype, cache.tail_width, 1,
                  out + cache.width);
    std::fill(out + width, out + stride, 0.0F);
  }
}

// Keys of a tile fit the first cache; few queries would gain less from a long tile than its widening displaces.
int64_t tile_tokens(const Softmax& s, int64_t heads) {
  return s.k_dim <= 128 && s.rows >= 16 * heads ? kMostTile : kPadding;
}

// One tile of one head, widened into k and v.
void attend_tile(const Softmax& s, const Cache& keys, const Cache* values, int64_t head, int64_t begin, int64_t end,
                 const int32_t* bounds) {
  const int64_t rows = s.rows / keys.heads, row = head * rows, tokens = end - begin;
  float* k = scratch<kKeys>(kMostTile * s.k_dim);
  widen_tokens(keys, begin, end, head, k);
  std::fill(k + tokens * s.k_dim, k + padded(tokens) * s.k_dim, 0.0F);
  Attend tile{.q = s.q + row * s.k_dim, .k = k, .v = k, .k_stride = s.k_dim, .v_stride = s.k_dim};
  if (values != nullptr) {
    float* v = scratch<kValues>(kMostTile * s.v_dim);
    widen_tokens(*values, begin, end, head, v);
    tile.v = v, tile.v_stride = s.v_dim;
  }
  tile.rows = rows, tile.tokens = tokens, tile.k_dim = s.k_dim, tile.v_dim = s.v_dim, tile.scale = s.scale;
  tile.first = bounds + row, tile.last = bounds + s.rows + row;
  tile.logits = scratch<kLogits>(kMostTile), tile.top = s.top + row, tile.sum = s.sum + row;
  tile.out = s.out + row * s.v_dim;
  isa().attend(tile);
}

}  // namespace

Cache cache_of(const PagedKv& kv, bool values, int64_t sequence, int64_t head, int64_t heads) {
  return {values ? kv.v : kv.k,
          kv.dtype,
          values ? kv.v_scale : kv.k_scale,
          kv.head_dim,
          kv.kv_heads * kv.head_dim,
          head * kv.head_dim,
          kv.head_dim,
          heads,
          kv.block_tokens,
          kv.blocks + sequence * kv.blocks_per_sequence};
}

Softmax fresh_softmax(int64_t rows, int64_t k_dim, int64_t v_dim, float scale) {
  Softmax s{.rows = rows, .k_dim = padded(k_dim), .v_dim = padded(v_dim), .scale = scale};
  s.q = scratch<kQueries>(rows * s.k_dim);
  s.out = scratch<kOut>(rows * s.v_dim);
  s.top = scratch<kMeasures>(4 * rows);
  s.sum = s.top + rows;
  s.first = reinterpret_cast<int32_t*>(s.sum + rows);
  s.last = s.first + rows;
  std::fill(s.top, s.top + rows, -INFINITY);
  std::fill(s.sum, s.sum + rows, 0.0F);
  std::fill(s.out, s.out + rows * s.v_dim, 0.0F);
  return s;
}

void set_query(const Softmax& s, int64_t row, const void* q, core::Dtype dtype, int64_t count) {
  isa().widen(q, dtype, count, 1, s.q + row * s.k_dim);
  std::fill(s.q + row * s.k_dim + count, s.q + (row + 1) * s.k_dim, 0.0F);
}

void attend(const Softmax& s, const Cache& keys, const Cache* values, int64_t begin, int64_t end) {
  std::vector<int32_t> bounds(static_cast<size_t>(2 * s.rows));
  const int64_t tile = tile_tokens(s, keys.heads);
  for (int64_t t = begin; t < end; t += tile) {
    const int64_t last = std::min(t + tile, end), next = std::min(last + tile, end);
    for (int64_t r = 0; r < s.rows; ++r) {
      bounds[r] = static_cast<int32_t>(std::clamp<int64_t>(s.first[r] - t, 0, last - t));
      bounds[s.rows + r] = static_cast<int32_t>(std::clamp<int64_t>(s.last[r] - t, 0, last - t));
    }
    for (int64_t head = 0; head < keys.heads; ++head) {
      prefetch(keys, last, next, head);
      if (values != nullptr) prefetch(*values, last, next, head);
      attend_tile(s, keys, values, head, t, last, bounds.data());
    }
  }
}

void finish(float* gathered, float sum, int64_t count, core::Dtype dtype, void* out) {
  isa().narrow(gathered, count, sum == 0 ? 1 : sum, dtype, out);
}

std::vector<Segment> segments_of(const int32_t* contexts, int64_t batch, int64_t window) {
  std::vector<Segment> segments;
  for (int64_t s = 0; s < batch; ++s) {
    const int64_t end = contexts[s], begin = window > 0 ? std::max<int64_t>(end - window, 0) : 0;
    for (int64_t t = begin; t < end; t += kSegment) segments.push_back({s, t, std::min(t + kSegment, end)});
  }
  return segments;
}

std::vector<int64_t> starts_of(const std::vector<Segment>& segments, int64_t batch) {
  std::vector<int64_t> starts(static_cast<size_t>(batch) + 1);
  for (const Segment& segment : segments) ++starts[segment.sequence + 1];
  for (int64_t s = 0; s < batch; ++s) starts[s + 1] += starts[s];
  return starts;
}

Partials::Partials(int64_t segments, int64_t heads, int64_t v_dim)
    : heads_(heads), stride_(kHeader + padded(v_dim)), data_(scratch<kPartials>(segments * heads * stride_)) {}

void Partials::put(int64_t segment, int64_t head, const Softmax& s) {
  for (int64_t r = 0; r < s.rows; ++r) {
    float* to = at(segment, head + r);
    to[0] = s.top[r], to[1] = s.sum[r];
    std::memcpy(to + kHeader, s.out + r * s.v_dim, static_cast<size_t>(s.v_dim) * sizeof(float));
  }
}

void Partials::merge(int64_t first, int64_t last, int64_t head, const float* sink, int64_t count, core::Dtype dtype,
                     void* out) const {
  float* sums = scratch<kOut>(stride_);
  std::fill(sums, sums + stride_, 0.0F);
  float top = -INFINITY;
  if (sink != nullptr && first < last) top = *sink;
  for (int64_t s = first; s < last; ++s) top = std::max(top, at(s, head)[0]);
  float sum = sink != nullptr && first < last ? std::exp(*sink - top) : 0;
  for (int64_t s = first; s < last; ++s) {
    const float* part = at(s, head);
    const float weight = part[0] == top ? 1 : std::exp(part[0] - top);
    sum += part[1] * weight;
    isa().add_scaled(part + kHeader, weight, count, sums);
  }
  finish(sums, sum, count, dtype, out);
}

std::vector<QueryTile> query_tiles(const int32_t* starts, int64_t batch, int64_t most) {
  std::vector<QueryTile> tiles;
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t row = starts[s]; row < starts[s + 1]; row += most)
      tiles.push_back({s, row, std::min<int64_t>(most, starts[s + 1] - row)});
  return tiles;
}

}  // namespace drydock::kernels::cpu
