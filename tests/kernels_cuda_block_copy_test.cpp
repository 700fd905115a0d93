#include <doctest/doctest.h>

#include "core/error.h"
#include "kernels/cuda/block_copy.h"
#include "tests/simt/on_device.h"

namespace drydock::tests {
namespace {

void round_trip(int64_t block_bytes) {
  const std::vector<int32_t> order = {4, 0, 2};
  std::vector<uint8_t> content(static_cast<size_t>(5 * block_bytes));
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<uint8_t>(i * 31 + i / 256);
  OnDevice<uint8_t> pool(content), buffer(static_cast<size_t>(3 * block_bytes)), other(content.size());
  OnDevice<int32_t> blocks(order);
  kernels::cuda::gather_blocks({pool.data(), buffer.data(), blocks.data(), 3, block_bytes}, nullptr);
  kernels::cuda::scatter_blocks({other.data(), buffer.data(), blocks.data(), 3, block_bytes}, nullptr);
  const std::vector<uint8_t> packed = buffer.read(), spread = other.read();
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t b = 0; b < block_bytes; ++b)
      REQUIRE(packed[static_cast<size_t>(i * block_bytes + b)] ==
              content[static_cast<size_t>(order[static_cast<size_t>(i)] * block_bytes + b)]);
  for (size_t at = 0; at < content.size(); ++at) {
    const auto block = static_cast<int64_t>(at) / block_bytes;
    REQUIRE(spread[at] == (block == 1 || block == 3 ? 0 : content[at]));
  }
}

TEST_CASE("blocks are gathered and scattered back") {
  in_every_order([] {
    round_trip(16);
    round_trip(4096 + 16);  // more than one word a thread, and not a multiple of the tile
    round_trip(65536);
  });
}

TEST_CASE("a block size that is no multiple of 16 is refused, and no blocks are a no-op") {
  OnDevice<uint8_t> pool(64), buffer(64);
  CHECK_THROWS_AS(kernels::cuda::gather_blocks({pool.data(), buffer.data(), nullptr, 1, 24}, nullptr), core::Error);
  CHECK_NOTHROW(kernels::cuda::gather_blocks({pool.data(), buffer.data(), nullptr, 0, 16}, nullptr));
}

}  // namespace
}  // namespace drydock::tests
