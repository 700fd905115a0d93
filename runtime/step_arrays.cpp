#include "runtime/step_arrays.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "core/error.h"

namespace drydock::runtime {
namespace {

class ArrayCarver {
 public:
  explicit ArrayCarver(std::byte* base) : base_(base) {}

  template <typename T>
  T* take(int64_t count) {
    constexpr size_t kAlignment = 16;
    T* const at = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

void check_sequence(const SequenceWork& s, int64_t vocabulary, int64_t kv_blocks, int64_t block_tokens,
                    int64_t longest) {
  const auto tokens = static_cast<int64_t>(s.tokens.size()), room = static_cast<int64_t>(s.blocks.size());
  const auto require = [](bool holds, const char* rule) {
    if (!holds) throw core::Error(std::string("engine: ") + rule);
  };
  require(tokens > 0 && s.context >= 0, "a sequence of a step needs a token to compute");
  require(s.context + tokens <= longest, "a sequence is longer than the model's max_position_embeddings");
  require(s.context + tokens <= room * block_tokens, "a sequence has too few KV blocks for its tokens");
  require(s.follows < 0 || tokens == 1, "a sequence follows with one token");
  require(s.outputs >= 0 && s.outputs <= tokens, "a sequence wants more outputs than it has tokens");
  for (const Token token : s.tokens) require(token >= 0 && token < vocabulary, "a token is not in the vocabulary");
  for (const int32_t block : s.blocks) require(block >= 0 && block < kv_blocks, "a KV block is not in the cache");
}

class StepFiller {
 public:
  StepFiller(const StepExtents& padded, const StepArrays& arrays) : e_(padded), a_(arrays) {}

  void fill(const RankWork& work, int32_t spare_block) {
    for_each_sequence(work, [&](const SequenceWork& s) { s.tokens.size() > 1 ? add_chunk(s) : add_single(s); });
    const int32_t spare[] = {spare_block};
    const Token token[] = {0};
    const SequenceWork nothing{.tokens = token, .blocks = spare};
    while (single_ < e_.singles) add_single(nothing);
    a_.starts[chunk_] = static_cast<int32_t>(chunk_row_);
    while (output_ < e_.outputs) add_output(0, Sampling{.temperature = 0}, 0);
  }

 private:
  void add_chunk(const SequenceWork& s) {
    a_.starts[chunk_] = static_cast<int32_t>(chunk_row_);
    add_tokens(s, chunk_row_, chunk_);
    chunk_row_ += static_cast<int64_t>(s.tokens.size());
    ++chunk_;
  }
  void add_single(const SequenceWork& s) {
    add_tokens(s, e_.chunk_tokens + single_, e_.chunks + single_);
    ++single_;
  }

  void add_tokens(const SequenceWork& s, int64_t row, int64_t sequence) {
    const auto tokens = static_cast<int64_t>(s.tokens.size());
    for (int64_t i = 0; i < tokens; ++i) {
      a_.ids[row + i] = s.tokens[static_cast<size_t>(i)];
      a_.positions[row + i] = static_cast<int32_t>(s.context + i);
      a_.sequence_of[row + i] = static_cast<int32_t>(sequence);
      a_.follows[row + i] = static_cast<int32_t>(s.follows);
    }
    int32_t* const blocks = a_.blocks + sequence * e_.blocks_per_sequence;
    const auto room = std::min(static_cast<int64_t>(s.blocks.size()), e_.blocks_per_sequence);
    std::copy_n(s.blocks.begin(), room, blocks);
    std::fill(blocks + room, blocks + e_.blocks_per_sequence, 0);
    a_.contexts[sequence] = static_cast<int32_t>(s.context + tokens);
    const Sampling greedy{.temperature = 0};
    const Sampling& sampling = s.sampling != nullptr ? *s.sampling : greedy;
    for (int64_t i = 0; i < s.outputs; ++i)
      add_output(row + tokens - s.outputs + i, sampling, static_cast<uint64_t>(s.answered + i));
  }

  void add_output(int64_t row, const Sampling& sampling, uint64_t counter) {
    a_.output_rows[output_] = static_cast<int32_t>(row);
    a_.temperatures[output_] = sampling.temperature;
    a_.top_p[output_] = sampling.top_p;
    a_.top_k[output_] = sampling.top_k;
    a_.seeds[output_] = sampling.seed;
    a_.counters[output_] = counter;
    ++output_;
  }

  const StepExtents& e_;
  const StepArrays& a_;
  int64_t chunk_ = 0, chunk_row_ = 0, single_ = 0, output_ = 0;
};

int64_t round_up(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

int64_t padded_batch(int64_t batch) {
  if (batch <= 8) return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(batch)));
  return round_up(batch, batch <= 64 ? 8 : 16);
}

}  // namespace

StepArrays StepArrays::at(std::byte* base, const StepExtents& e, size_t& bytes) {
  ArrayCarver carver(base);
  StepArrays a;
  a.seeds = carver.take<uint64_t>(e.outputs);
  a.counters = carver.take<uint64_t>(e.outputs);
  a.ids = carver.take<int32_t>(e.tokens());
  a.positions = carver.take<int32_t>(e.tokens());
  a.sequence_of = carver.take<int32_t>(e.tokens());
  a.follows = carver.take<int32_t>(e.tokens());
  a.contexts = carver.take<int32_t>(e.sequences());
  a.starts = carver.take<int32_t>(e.chunks + 1);
  a.output_rows = carver.take<int32_t>(e.outputs);
  a.temperatures = carver.take<float>(e.outputs);
  a.top_p = carver.take<float>(e.outputs);
  a.top_k = carver.take<int32_t>(e.outputs);
  a.blocks = carver.take<int32_t>(e.sequences() * e.blocks_per_sequence);
  bytes = carver.used();
  return a;
}

StepExtents extents_of(const RankWork& work, int64_t vocabulary, int64_t kv_blocks, int64_t block_tokens,
                       int64_t longest) {
  StepExtents e;
  for_each_sequence(work, [&](const SequenceWork& s) {
    check_sequence(s, vocabulary, kv_blocks, block_tokens, longest);
    const auto tokens = static_cast<int64_t>(s.tokens.size()), context = s.context + tokens;
    e.outputs += s.outputs;
    e.followed = std::max(e.followed, s.follows + 1);
    e.blocks_per_sequence = std::max(e.blocks_per_sequence, (context + block_tokens - 1) / block_tokens);
    if (tokens == 1) {
      ++e.singles;
      e.single_context = std::max(e.single_context, context);
    } else {
      ++e.chunks;
      e.chunk_tokens += tokens;
      e.longest_chunk = std::max(e.longest_chunk, tokens);
      e.chunk_context = std::max(e.chunk_context, context);
    }
  });
  return e;
}

StepExtents padded_extents(const StepExtents& extents, int64_t block_tokens) {
  StepExtents padded = extents;
  padded.singles = padded.outputs = padded_batch(extents.singles);
  const auto octave = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(extents.blocks_per_sequence)));
  padded.blocks_per_sequence = round_up(extents.blocks_per_sequence, std::max<int64_t>(16, octave / 8));
  padded.single_context = padded.blocks_per_sequence * block_tokens;
  return padded;
}

void fill_step(const RankWork& work, const StepExtents& padded, int32_t spare_block, const StepArrays& arrays) {
  StepFiller(padded, arrays).fill(work, spare_block);
}

}  // namespace drydock::runtime
