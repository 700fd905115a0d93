#pragma once
// What attention on the CPU is made of: tokens of a cache widened tile by tile and taken into running softmaxes, and
// the softmaxes of parts of a sequence merged.
#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "kernels/attention.h"
#include "kernels/isa.h"

namespace drydock::kernels::cpu {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Some neighbouring heads of one sequence in a cache.
struct Cache {
  const void* data = nullptr;
  core::Dtype dtype = core::Dtype::bf16;
  float scale = 1;
  int64_t width = 0;                            // numbers of a token's row of one head
  int64_t token_stride = 0, first_element = 0;  // elements: from token to token, to the first head's row
  int64_t head_stride = 0;                      // elements from head to head
  int64_t heads = 1;
  int64_t block_tokens = 0;
  const int32_t* blocks = nullptr;    // of the sequence; null: tokens lie one after another from `data` on
  const int32_t* selected = nullptr;  // positions of the tokens that take part; null: all, in order
  // The rest of a token's row, the same for all heads; null: none.
  const void* tail = nullptr;
  int64_t tail_width = 0, tail_stride = 0;
};

Cache cache_of(const PagedKv& kv, bool values, int64_t sequence, int64_t head, int64_t heads);

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

// In the calling thread's scratch memory: one at a time.
Softmax fresh_softmax(int64_t rows, int64_t k_dim, int64_t v_dim, float scale);
void set_query(const Softmax& s, int64_t row, const void* q, core::Dtype dtype, int64_t count);

// Tokens [begin, end) of the cache. Without `values` the keys' first v_dim numbers are the values.
void attend(const Softmax& s, const Cache& keys, const Cache* values, int64_t begin, int64_t end);

// out row = what was gathered / its weight; nothing gathered gives zeros.
void finish(float* gathered, float sum, int64_t count, core::Dtype dtype, void* out);

// A part of a sequence that one task attends to.
struct Segment {
  int64_t sequence = 0, begin = 0, end = 0;
};

// Of all sequences, one after another; the same split whatever the batch and the threads.
std::vector<Segment> segments_of(const int32_t* contexts, int64_t batch, int64_t window);

// The segments of sequence s are [starts[s], starts[s + 1]).
std::vector<int64_t> starts_of(const std::vector<Segment>& segments, int64_t batch);

// What every segment leaves of each head: top, sum, then v_dim numbers. In scratch memory of the thread that makes it.
class Partials {
 public:
  Partials(int64_t segments, int64_t heads, int64_t v_dim);

  void put(int64_t segment, int64_t head, const Softmax& s);

  // Segments [first, last) of one head, a sink with them, in order; null: no sink.
  void merge(int64_t first, int64_t last, int64_t head, const float* sink, int64_t count, core::Dtype dtype,
             void* out) const;

 private:
  float* at(int64_t segment, int64_t head) const { return data_ + (segment * heads_ + head) * stride_; }

  int64_t heads_, stride_;
  float* data_;
};

// Rows of queries [row, row + rows), of one sequence.
struct QueryTile {
  int64_t sequence = 0, row = 0, rows = 0;
};

// Chunks [starts[s], starts[s + 1]) in tiles of at most `most` rows.
std::vector<QueryTile> query_tiles(const int32_t* starts, int64_t batch, int64_t most);

inline constexpr int64_t kHeadsPerTask = 8;  // KV heads of one task: together they read whole rows of the cache
inline constexpr int64_t kRowsPerTask = 64;  // queries of prefill, times heads, that share a tile

}  // namespace drydock::kernels::cpu
