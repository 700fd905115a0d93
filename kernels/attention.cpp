#include "kernels/attention.h"

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

constexpr int64_t kMostTile = 32;     // tokens whose keys and values stand in fp32 in the cache at a time
constexpr int64_t kSegment = 512;     // tokens of one task: the same split whatever the batch and the threads
constexpr int64_t kHeads = 8;         // KV heads of one task: together they read whole rows of the cache
constexpr int64_t kRowsPerTask = 64;  // queries of prefill, times heads, that share a tile
constexpr int64_t kMlaHeads = 16;     // heads of MLA that share a tile

enum AttentionScratch { kQueries = 8, kKeys, kValues, kLogits, kOut, kMeasures, kPartials };

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Some neighbouring heads of one sequence in a paged cache.
struct Cache {
  const void* data = nullptr;
  core::Dtype dtype = core::Dtype::bf16;
  float scale = 1;
  int64_t width = 0;                            // numbers of a token's row of one head
  int64_t token_stride = 0, first_element = 0;  // elements: from token to token, to the first head's row
  int64_t heads = 1;
  int64_t block_tokens = 0;
  const int32_t* blocks = nullptr;  // of the sequence
};

Cache cache_of(const PagedKv& kv, bool values, int64_t sequence, int64_t head, int64_t heads) {
  return {values ? kv.v : kv.k,
          kv.dtype,
          values ? kv.v_scale : kv.k_scale,
          kv.head_dim,
          kv.kv_heads * kv.head_dim,
          head * kv.head_dim,
          heads,
          kv.block_tokens,
          kv.blocks + sequence * kv.blocks_per_sequence};
}

const void* token_row(const Cache& cache, int64_t t, int64_t head) {
  const int64_t slot = int64_t{cache.blocks[t / cache.block_tokens]} * cache.block_tokens + t % cache.block_tokens;
  return at(cache.data, cache.dtype, slot * cache.token_stride + cache.first_element + head * cache.width);
}

// Sends for the part of the tokens [first, last), all heads of them, that falls to `head`. Every head's turn does its
// part: the rows of one head are short and lie apart, and the processor would not see them coming.
void prefetch(const Cache& cache, int64_t first, int64_t last, int64_t head) {
  const int64_t count = last - first, bytes = cache.heads * cache.width * element_bytes(cache.dtype);
  for (int64_t t = first + count * head / cache.heads; t < first + count * (head + 1) / cache.heads; ++t) {
    const auto* row = static_cast<const char*>(token_row(cache, t, 0));
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(row + byte);
  }
}

// Tokens [first, last) of one head to rows of padded(width).
void widen_tokens(const Cache& cache, int64_t first, int64_t last, int64_t head, float* out) {
  const int64_t stride = padded(cache.width);
  for (int64_t t = first; t < last; ++t, out += stride) {
    isa().widen(token_row(cache, t, head), cache.dtype, cache.width, cache.scale, out);
    std::fill(out + cache.width, out + stride, 0.0F);
  }
}

// Running softmaxes of some queries over a cache, equally many of each of its heads, head by head. Row r sees tokens
// [first[r], last[r]).
struct Softmax {
  int64_t rows = 0, k_dim = 0, v_dim = 0;  // padded
  float* q = nullptr;                      // (rows, k_dim)
  float* top = nullptr;                    // (rows)
  float* sum = nullptr;                    // (rows)
  float* out = nullptr;                    // (rows, v_dim)
  int32_t* first = nullptr;                // (rows)
  int32_t* last = nullptr;                 // (rows)
  float scale = 1;
};

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

// Keys of a tile fit the first cache; few queries would gain less from a long tile than its widening displaces.
int64_t tile_tokens(const Softmax& s, int64_t heads) {
  return s.k_dim <= 128 && s.rows >= 16 * heads ? kMostTile : kPadding;
}

// One tile of one head, widened into k and v. Without `values` the keys' first v_dim numbers are the values.
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

// Tokens [begin, end) of the cache.
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

// out row = what was gathered / its weight; nothing gathered gives zeros.
void finish(float* gathered, float sum, int64_t count, core::Dtype dtype, void* out) {
  isa().narrow(gathered, count, sum == 0 ? 1 : sum, dtype, out);
}

void check_kv(const PagedKv& kv, core::Dtype dtype, int64_t heads, const char* kernel) {
  const bool known = kv.dtype == core::Dtype::fp32 || kv.dtype == core::Dtype::bf16 || kv.dtype == core::Dtype::fp8;
  require(known, kernel, "the cache has to be fp32, bf16 or fp8");
  require(dtype == core::Dtype::fp32 || dtype == core::Dtype::bf16, kernel, "q has to be fp32 or bf16");
  require(kv.kv_heads > 0 && kv.head_dim > 0 && kv.block_tokens > 0, kernel, "the cache's extents have to be above 0");
  require(heads % kv.kv_heads == 0, kernel, "heads have to be a multiple of the cache's heads");
}

// ---- decode: segments of the sequences are tasks, and their softmaxes are merged afterwards -----------------------

struct Segment {
  int64_t sequence = 0, begin = 0, end = 0;
};

std::vector<Segment> segments_of(const int32_t* contexts, int64_t batch, int64_t window) {
  std::vector<Segment> segments;
  for (int64_t s = 0; s < batch; ++s) {
    const int64_t end = contexts[s], begin = window > 0 ? std::max<int64_t>(end - window, 0) : 0;
    for (int64_t t = begin; t < end; t += kSegment) segments.push_back({s, t, std::min(t + kSegment, end)});
  }
  return segments;
}

// What every segment leaves of each head: top, sum, then v_dim numbers.
class Partials {
 public:
  Partials(int64_t segments, int64_t heads, int64_t v_dim)
      : heads_(heads), stride_(kHeader + padded(v_dim)), data_(scratch<kPartials>(segments * heads * stride_)) {}

  void put(int64_t segment, int64_t head, const Softmax& s) {
    for (int64_t r = 0; r < s.rows; ++r) {
      float* to = at(segment, head + r);
      to[0] = s.top[r], to[1] = s.sum[r];
      std::memcpy(to + kHeader, s.out + r * s.v_dim, static_cast<size_t>(s.v_dim) * sizeof(float));
    }
  }

  // Segments [first, last) of one head, a sink with them, in order; null: no sink.
  void merge(int64_t first, int64_t last, int64_t head, const float* sink, int64_t count, core::Dtype dtype,
             void* out) {
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

 private:
  static constexpr int64_t kHeader = 16;  // keeps the rows aligned
  float* at(int64_t segment, int64_t head) { return data_ + (segment * heads_ + head) * stride_; }

  int64_t heads_, stride_;
  float* data_;
};

// The segments of a batch's sequences stand one after another: those of sequence s are [starts[s], starts[s + 1]).
std::vector<int64_t> starts_of(const std::vector<Segment>& segments, int64_t batch) {
  std::vector<int64_t> starts(static_cast<size_t>(batch) + 1);
  for (const Segment& segment : segments) ++starts[segment.sequence + 1];
  for (int64_t s = 0; s < batch; ++s) starts[s + 1] += starts[s];
  return starts;
}

// All queries of KV heads [kv_head, kv_head + kv_heads).
Softmax decode_segment(const DecodeAttention& op, const Segment& segment, int64_t kv_head, int64_t kv_heads) {
  const int64_t dim = op.kv.head_dim, group = op.heads / op.kv.kv_heads;
  const Softmax s = fresh_softmax(kv_heads * group, dim, dim, op.scale);
  for (int64_t r = 0; r < s.rows; ++r) {
    const int64_t row = segment.sequence * op.heads + kv_head * group + r;
    set_query(s, r, at(op.q, op.dtype, row * dim), op.dtype, dim);
    s.first[r] = static_cast<int32_t>(segment.begin), s.last[r] = static_cast<int32_t>(segment.end);
  }
  const Cache values = cache_of(op.kv, true, segment.sequence, kv_head, kv_heads);
  attend(s, cache_of(op.kv, false, segment.sequence, kv_head, kv_heads), &values, segment.begin, segment.end);
  return s;
}

Softmax mla_segment(const MlaDecode& op, const Segment& segment, int64_t head, int64_t heads) {
  const int64_t width = op.latent + op.rope;
  const Softmax s = fresh_softmax(heads, width, op.latent, op.scale);
  for (int64_t r = 0; r < heads; ++r) {
    const int64_t row = segment.sequence * op.heads + head + r;
    set_query(s, r, at(op.q, op.dtype, row * width), op.dtype, width);
    s.first[r] = static_cast<int32_t>(segment.begin), s.last[r] = static_cast<int32_t>(segment.end);
  }
  const int32_t* blocks = op.blocks + segment.sequence * op.blocks_per_sequence;
  attend(s, {op.cache, op.dtype, 1, width, width, 0, 1, op.block_tokens, blocks}, nullptr, segment.begin, segment.end);
  return s;
}

// ---- prefill: some tokens of a chunk, with all heads of one KV head, are a task -----------------------------------

struct QueryTile {
  int64_t sequence = 0, row = 0, rows = 0;  // rows of q
};

std::vector<QueryTile> tiles_of(const PrefillAttention& op) {
  std::vector<QueryTile> tiles;
  const int64_t most = std::max<int64_t>(kRowsPerTask / (op.heads / op.kv.kv_heads), 1);
  for (int64_t s = 0; s < op.batch; ++s)
    for (int64_t row = op.starts[s]; row < op.starts[s + 1]; row += most)
      tiles.push_back({s, row, std::min<int64_t>(most, op.starts[s + 1] - row)});
  return tiles;
}

// Queries of KV heads [kv_head, kv_head + kv_heads): rows of the softmaxes are (KV head, token, head of the group).
void prefill_tile(const PrefillAttention& op, const QueryTile& tile, int64_t kv_head, int64_t kv_heads) {
  const int64_t dim = op.kv.head_dim, group = op.heads / op.kv.kv_heads, each = tile.rows * group;
  const int64_t past = op.contexts[tile.sequence] - op.starts[tile.sequence + 1];  // position of row 0
  const Softmax s = fresh_softmax(kv_heads * each, dim, dim, op.scale);
  const auto query = [&](int64_t r) {  // row of (tokens, heads)
    return (tile.row + r % each / group) * op.heads + (kv_head + r / each) * group + r % group;
  };
  for (int64_t r = 0; r < s.rows; ++r) {
    set_query(s, r, at(op.q, op.dtype, query(r) * dim), op.dtype, dim);
    s.last[r] = static_cast<int32_t>(past + tile.row + r % each / group + 1);
    s.first[r] = op.window > 0 ? static_cast<int32_t>(std::max<int64_t>(s.last[r] - op.window, 0)) : 0;
    if (op.sinks != nullptr) s.top[r] = op.sinks[query(r) % op.heads], s.sum[r] = 1;
  }
  const Cache values = cache_of(op.kv, true, tile.sequence, kv_head, kv_heads);
  const Cache keys = cache_of(op.kv, false, tile.sequence, kv_head, kv_heads);
  attend(s, keys, &values, s.first[0], s.last[s.rows - 1]);
  for (int64_t r = 0; r < s.rows; ++r)
    finish(s.out + r * s.v_dim, s.sum[r], dim, op.dtype, at(op.out, op.dtype, query(r) * dim));
}

}  // namespace

void decode_attention(const DecodeAttention& op, Threads& threads) {
  check_kv(op.kv, op.dtype, op.heads, "decode_attention");
  const std::vector<Segment> segments = segments_of(op.contexts, op.batch, op.window);
  const std::vector<int64_t> starts = starts_of(segments, op.batch);
  const int64_t count = static_cast<int64_t>(segments.size()), dim = op.kv.head_dim;
  Partials partials(count, op.heads, dim);
  const int64_t parts = ceil_div(op.kv.kv_heads, kHeads), group = op.heads / op.kv.kv_heads;
  threads.parallel_for(count * parts, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t kv_head = task % parts * kHeads, kv_heads = std::min(kHeads, op.kv.kv_heads - kv_head);
      partials.put(task / parts, kv_head * group, decode_segment(op, segments[task / parts], kv_head, kv_heads));
    }
  });
  threads.parallel_for(op.batch * op.heads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t s = row / op.heads, head = row % op.heads;
      partials.merge(starts[s], starts[s + 1], head, op.sinks != nullptr ? op.sinks + head : nullptr, dim, op.dtype,
                     at(op.out, op.dtype, row * dim));
    }
  });
}

void prefill_attention(const PrefillAttention& op, Threads& threads) {
  check_kv(op.kv, op.dtype, op.heads, "prefill_attention");
  const std::vector<QueryTile> tiles = tiles_of(op);
  const int64_t count = static_cast<int64_t>(tiles.size());
  // The last tiles of a chunk see the most: dealt out in turns they make the threads' shares alike.
  const int64_t tasks = count * ceil_div(op.kv.kv_heads, kHeads), shares = std::min<int64_t>(threads.size(), tasks);
  threads.parallel_for(shares, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      for (int64_t task = share; task < tasks; task += shares) {
        const int64_t kv_head = task / count * kHeads;
        prefill_tile(op, tiles[task % count], kv_head, std::min(kHeads, op.kv.kv_heads - kv_head));
      }
    }
  });
}

void mla_decode(const MlaDecode& op, Threads& threads) {
  require(op.dtype == core::Dtype::fp32 || op.dtype == core::Dtype::bf16, "mla_decode", "q has to be fp32 or bf16");
  require(op.latent > 0 && op.rope >= 0 && op.block_tokens > 0, "mla_decode", "extents have to be above 0");
  const std::vector<Segment> segments = segments_of(op.contexts, op.batch, 0);
  const std::vector<int64_t> starts = starts_of(segments, op.batch);
  const int64_t count = static_cast<int64_t>(segments.size()), parts = ceil_div(op.heads, kMlaHeads);
  Partials partials(count, op.heads, op.latent);
  threads.parallel_for(count * parts, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task % parts * kMlaHeads;
      const int64_t heads = std::min(kMlaHeads, op.heads - head);
      partials.put(task / parts, head, mla_segment(op, segments[task / parts], head, heads));
    }
  });
  threads.parallel_for(op.batch * op.heads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      partials.merge(starts[row / op.heads], starts[row / op.heads + 1], row % op.heads, nullptr, op.latent, op.dtype,
                     at(op.out, op.dtype, row * op.latent));
  });
}

}  // namespace drydock::kernels::cpu
