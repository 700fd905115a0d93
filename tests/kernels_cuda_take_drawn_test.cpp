#include <doctest/doctest.h>

#include "kernels/cpu.h"
#include "kernels/cuda/take_drawn.h"
#include "kernels/reference.h"
#include "tests/simt/on_device.h"

namespace drydock::tests {
namespace {

void takes(int64_t tokens) {
  std::vector<int32_t> ids, sources;
  for (int64_t t = 0; t < tokens; ++t) {
    ids.push_back(static_cast<int32_t>(1000 + t));
    // Known ones, drawn ones in no order, and what no step can have drawn.
    sources.push_back(t % 3 == 0 ? -1 : t % 7 == 1 ? 5 : static_cast<int32_t>((t * 11) % 5));
  }
  const std::vector<int32_t> drawn = {70, 71, 72, 73, 74};
  std::vector<int32_t> on_cpu = ids;
  const std::vector<int32_t> want =
      kernels::reference::take_drawn({ids.data(), sources.data(), drawn.data(), tokens, 5});
  kernels::cpu::take_drawn({on_cpu.data(), sources.data(), drawn.data(), tokens, 5});
  CHECK(on_cpu == want);
  OnDevice<int32_t> device_ids(ids), device_sources(sources), device_drawn(drawn);
  kernels::cuda::take_drawn({device_ids.data(), device_sources.data(), device_drawn.data(), tokens, 5}, nullptr);
  CHECK(device_ids.read() == want);
}

}  // namespace

TEST_CASE("tokens that the step before drew are put in their places, the others stay") {
  const std::vector<int32_t> ids = {1, 2, 3, 4}, sources = {-1, 1, 0, 2}, drawn = {8, 9};
  CHECK(kernels::reference::take_drawn({const_cast<int32_t*>(ids.data()), sources.data(), drawn.data(), 4, 2}) ==
        std::vector<int32_t>{1, 9, 8, 4});
  in_every_order([] {
    takes(1);
    takes(128);
    takes(300);  // three blocks, the last in part
  });
  CHECK_NOTHROW(kernels::cuda::take_drawn({}, nullptr));
}

}  // namespace drydock::tests
