#pragma once
// Random attention problems in two memories: the host's, for the reference, and the device's, for the kernels.
#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <vector>

#include "core/random.h"
#include "kernels/attention.h"
#include "kernels/element.h"
#include "tests/simt/on_device.h"

namespace drydock::tests {

template <typename T>
T one_of(core::Random& random, std::initializer_list<T> values) {
  return values.begin()[random.integer(0, static_cast<int64_t>(values.size()) - 1)];
}

inline std::vector<kernels::Bf16> random_bf16(core::Random& random, int64_t count) {
  std::vector<kernels::Bf16> out(static_cast<size_t>(count));
  for (kernels::Bf16& x : out) x = kernels::to_bf16(static_cast<float>(2 * random.uniform() - 1));
  return out;
}

// Copies of an array on both sides.
template <typename T>
struct Both {
  std::vector<T> host;
  std::unique_ptr<OnDevice<T>> device;
  explicit Both(std::vector<T> content) : host(std::move(content)), device(std::make_unique<OnDevice<T>>(host)) {}
  T* at(bool on_device) { return on_device ? device->data() : host.data(); }
};

// Blocks of a cache dealt to sequences in random order. Block 0 belongs to nobody: entries that must not be used name
// it.
struct Dealt {
  std::vector<int32_t> blocks;  // (batch, per_sequence)
  int64_t per_sequence = 0, count = 1;
};
inline Dealt deal_blocks(core::Random& random, const std::vector<int32_t>& contexts, int64_t block_tokens) {
  Dealt out;
  for (const int64_t c : contexts) {
    out.per_sequence = std::max(out.per_sequence, (c + block_tokens - 1) / block_tokens + random.integer(0, 1));
    out.count += (c + block_tokens - 1) / block_tokens;
  }
  std::vector<int32_t> order(static_cast<size_t>(out.count - 1));
  std::iota(order.begin(), order.end(), 1);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
  size_t next = 0;
  for (const int64_t c : contexts)
    for (int64_t b = 0; b < out.per_sequence; ++b)
      out.blocks.push_back(b < (c + block_tokens - 1) / block_tokens ? order[next++] : 0);
  return out;
}

// Bytes of a cache of `row` elements a token: random where there is a token, NaN everywhere else.
inline std::vector<uint8_t> random_cache(core::Random& random, const Dealt& dealt, const std::vector<int32_t>& contexts,
                                         int64_t block_tokens, int64_t row, core::Dtype dtype) {
  const int64_t size = dtype == core::Dtype::fp8 ? 1 : 2;
  std::vector<uint8_t> out(static_cast<size_t>(dealt.count * block_tokens * row * size),
                           dtype == core::Dtype::fp8 ? 0x7f : 0xff);
  for (size_t s = 0; s < contexts.size(); ++s) {
    for (int64_t t = 0; t < contexts[s]; ++t) {
      const int64_t block =
          dealt.blocks[s * static_cast<size_t>(dealt.per_sequence) + static_cast<size_t>(t / block_tokens)];
      uint8_t* const at = out.data() + (block * block_tokens + t % block_tokens) * row * size;
      for (int64_t i = 0; i < row; ++i) {
        const auto x = static_cast<float>(2 * random.uniform() - 1);
        if (size == 1) {
          at[i] = kernels::to_fp8(x).bits;
        } else {
          const uint16_t bits = kernels::to_bf16(x).bits;
          at[2 * i] = static_cast<uint8_t>(bits);
          at[2 * i + 1] = static_cast<uint8_t>(bits >> 8);
        }
      }
    }
  }
  return out;
}

// A paged cache with its contexts.
struct Cache {
  Dealt dealt;
  Both<uint8_t> k, v;
  Both<int32_t> blocks, contexts;
  kernels::PagedKv shape;

  Cache(core::Random& random, const std::vector<int32_t>& lengths, const kernels::PagedKv& kv)
      : dealt(deal_blocks(random, lengths, kv.block_tokens)),
        k(random_cache(random, dealt, lengths, kv.block_tokens, kv.kv_heads * kv.head_dim, kv.dtype)),
        v(random_cache(random, dealt, lengths, kv.block_tokens, kv.kv_heads * kv.head_dim, kv.dtype)),
        blocks(dealt.blocks),
        contexts(lengths),
        shape(kv) {
    shape.blocks_per_sequence = dealt.per_sequence;
  }
  kernels::PagedKv view(bool on_device) {
    kernels::PagedKv kv = shape;
    kv.k = k.at(on_device);
    kv.v = v.at(on_device);
    kv.blocks = blocks.at(on_device);
    return kv;
  }
};

inline std::vector<float> random_sinks(core::Random& random, int64_t heads) {
  std::vector<float> out(static_cast<size_t>(heads));
  for (float& x : out) x = static_cast<float>(4 * random.uniform() - 2);
  return out;
}

// The probabilities are rounded to bf16 before they meet the values and so is the result: 2^-9 of the values' largest
// magnitude `largest` and 2^-9 of the result. All else is in fp32, a thousand times finer; exp2 of the GPU too.
inline void check_close(const std::vector<kernels::Bf16>& got, const std::vector<double>& want, double largest) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::fabs(double{kernels::to_float(got[i])} - want[i]);
    if (!(error <= (std::fabs(want[i]) + largest) / 512 * 1.01 + 1e-6)) {
      FAIL("element " << i << " is " << kernels::to_float(got[i]) << ", should be " << want[i]);
    }
  }
}

// Outputs that nobody has written.
inline std::vector<kernels::Bf16> poisoned(int64_t count) {
  return std::vector<kernels::Bf16>(static_cast<size_t>(count), kernels::Bf16{0x7fc0});
}
// A workspace of NaNs but for its counters.
inline std::vector<uint8_t> poisoned_workspace(size_t bytes, size_t counters) {
  std::vector<uint8_t> out(bytes, 0xff);
  std::fill_n(out.begin(), std::min(bytes, counters), uint8_t{0});
  return out;
}

}  // namespace drydock::tests
