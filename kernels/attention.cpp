#include "kernels/attention.h"

#include <algorithm>

#include "kernels/attention_tiles.h"
#include "kernels/cpu.h"
#include "kernels/operands.h"

namespace drydock::kernels::cpu {
namespace {

void check_kv(const PagedKv& kv, core::Dtype dtype, int64_t heads, const char* kernel) {
  const bool known = kv.dtype == core::Dtype::fp32 || kv.dtype == core::Dtype::bf16 || kv.dtype == core::Dtype::fp8;
  require(known, kernel, "the cache has to be fp32, bf16 or fp8");
  require(dtype == core::Dtype::fp32 || dtype == core::Dtype::bf16, kernel, "q has to be fp32 or bf16");
  require(kv.kv_heads > 0 && kv.head_dim > 0 && kv.block_tokens > 0, kernel, "the cache's extents have to be above 0");
  require(heads % kv.kv_heads == 0, kernel, "heads have to be a multiple of the cache's heads");
}

// ---- decode: segments of the sequences are tasks, and their softmaxes are merged afterwards -----------------------

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

// ---- prefill: some tokens of a chunk, with all heads of one KV head, are a task -----------------------------------

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
  const int64_t parts = ceil_div(op.kv.kv_heads, kHeadsPerTask), group = op.heads / op.kv.kv_heads;
  threads.parallel_for(count * parts, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t kv_head = task % parts * kHeadsPerTask,
                    kv_heads = std::min(kHeadsPerTask, op.kv.kv_heads - kv_head);
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
  const int64_t most = std::max<int64_t>(kRowsPerTask / (op.heads / op.kv.kv_heads), 1);
  const std::vector<QueryTile> tiles = query_tiles(op.starts, op.batch, most);
  const int64_t count = static_cast<int64_t>(tiles.size());
  // The last tiles of a chunk see the most: dealt out in turns they make the threads' shares alike.
  const int64_t tasks = count * ceil_div(op.kv.kv_heads, kHeadsPerTask),
                shares = std::min<int64_t>(threads.size(), tasks);
  threads.parallel_for(shares, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      for (int64_t task = share; task < tasks; task += shares) {
        const int64_t kv_head = task / count * kHeadsPerTask;
        prefill_tile(op, tiles[task % count], kv_head, std::min(kHeadsPerTask, op.kv.kv_heads - kv_head));
      }
    }
  });
}

}  // namespace drydock::kernels::cpu
