#include <algorithm>

#include "kernels/attention.h"
#include "kernels/attention_tiles.h"
#include "kernels/cpu.h"
#include "kernels/operands.h"

namespace drydock::kernels::cpu {
namespace {

constexpr int64_t kMlaHeads = 16;  // heads of absorbed MLA that share a tile

void check_dtype(core::Dtype dtype, const char* kernel) {
  require(dtype == core::Dtype::fp32 || dtype == core::Dtype::bf16, kernel, "q has to be fp32 or bf16");
}

// Rows that all heads read.
Cache latents(const void* data, core::Dtype dtype, int64_t width, int64_t block_tokens, const int32_t* blocks) {
  Cache cache{data, dtype};
  cache.width = cache.token_stride = width;
  cache.block_tokens = block_tokens, cache.blocks = blocks;
  return cache;
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
  attend(s, latents(op.cache, op.dtype, width, op.block_tokens, blocks), nullptr, segment.begin, segment.end);
  return s;
}

// Queries of heads [head, head + heads) of one token over the tokens picked for it.
void sparse_token(const SparseMla& op, int64_t token, int64_t head, int64_t heads) {
  const int64_t width = op.latent + op.rope, count = op.counts[token];
  const Softmax s = fresh_softmax(heads, width, op.latent, op.scale);
  for (int64_t r = 0; r < heads; ++r) {
    set_query(s, r, at(op.q, op.dtype, (token * op.heads + head + r) * width), op.dtype, width);
    s.first[r] = 0, s.last[r] = static_cast<int32_t>(count);
  }
  Cache cache =
      latents(op.cache, op.dtype, width, op.block_tokens, op.blocks + op.sequences[token] * op.blocks_per_sequence);
  cache.selected = op.selected + token * op.most_selected;
  attend(s, cache, nullptr, 0, count);
  for (int64_t r = 0; r < heads; ++r)
    finish(s.out + r * s.v_dim, s.sum[r], op.latent, op.dtype,
           at(op.out, op.dtype, (token * op.heads + head + r) * op.latent));
}

// Queries of heads [head, head + heads): rows of the softmaxes are (head, token).
void mla_prefill_tile(const MlaPrefill& op, const QueryTile& tile, int64_t head, int64_t heads) {
  const int64_t key_dim = op.nope + op.rope, row_width = op.nope + op.value_dim,
                first_key = op.key_starts[tile.sequence];
  // Position of row 0 of q in this sequence.
  const int64_t past = op.key_starts[tile.sequence + 1] - first_key - op.starts[tile.sequence + 1];
  const Softmax s = fresh_softmax(heads * tile.rows, key_dim, op.value_dim, op.scale);
  const auto query = [&](int64_t r) { return (tile.row + r % tile.rows) * op.heads + head + r / tile.rows; };
  for (int64_t r = 0; r < s.rows; ++r) {
    set_query(s, r, at(op.q, op.dtype, query(r) * key_dim), op.dtype, key_dim);
    s.first[r] = 0, s.last[r] = static_cast<int32_t>(past + tile.row + r % tile.rows + 1);
  }
  Cache keys{at(op.kv, op.dtype, first_key * op.heads * row_width), op.dtype};
  keys.width = op.nope, keys.token_stride = op.heads * row_width;
  keys.first_element = head * row_width, keys.head_stride = row_width, keys.heads = heads;
  Cache values = keys;
  values.width = op.value_dim, values.first_element += op.nope;
  if (op.rope > 0) keys.tail = at(op.k_rope, op.dtype, first_key * op.rope_stride);
  keys.tail_width = op.rope, keys.tail_stride = op.rope_stride;
  attend(s, keys, &values, 0, s.last[s.rows - 1]);
  for (int64_t r = 0; r < s.rows; ++r)
    finish(s.out + r * s.v_dim, s.sum[r], op.value_dim, op.dtype, at(op.out, op.dtype, query(r) * op.value_dim));
}

}  // namespace

void mla_decode(const MlaDecode& op, Threads& threads) {
  check_dtype(op.dtype, "mla_decode");
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

void sparse_mla(const SparseMla& op, Threads& threads) {
  check_dtype(op.dtype, "sparse_mla");
  require(op.latent > 0 && op.rope >= 0 && op.block_tokens > 0, "sparse_mla", "extents have to be above 0");
  const int64_t parts = ceil_div(op.heads, kMlaHeads);
  threads.parallel_for(op.tokens * parts, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task % parts * kMlaHeads;
      sparse_token(op, task / parts, head, std::min(kMlaHeads, op.heads - head));
    }
  });
}

void mla_prefill(const MlaPrefill& op, Threads& threads) {
  check_dtype(op.dtype, "mla_prefill");
  require(op.nope > 0 && op.rope >= 0 && op.value_dim > 0, "mla_prefill", "extents have to be above 0");
  require(op.rope_stride >= op.rope, "mla_prefill", "rope_stride has to be at least rope");
  const std::vector<QueryTile> tiles = query_tiles(op.starts, op.batch, kRowsPerTask);
  const auto count = static_cast<int64_t>(tiles.size());
  // The last tiles of a chunk see the most: dealt out in turns they make the threads' shares alike.
  const int64_t tasks = count * ceil_div(op.heads, kHeadsPerTask), shares = std::min<int64_t>(threads.size(), tasks);
  threads.parallel_for(shares, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      for (int64_t task = share; task < tasks; task += shares) {
        const int64_t head = task / count * kHeadsPerTask;
        mla_prefill_tile(op, tiles[task % count], head, std::min(kHeadsPerTask, op.heads - head));
      }
    }
  });
}

}  // namespace drydock::kernels::cpu
