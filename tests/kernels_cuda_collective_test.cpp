#include <doctest/doctest.h>

#include <cmath>
#include <memory>

#include "core/error.h"
#include "kernels/cuda/peer_all_reduce.h"
#include "tests/simt/on_device.h"
#include "tests/simt/random_numbers.h"

namespace drydock::tests {
namespace {

using core::Dtype;
using kernels::Bf16;
using kernels::cuda::Peers;
using kernels::cuda::PeerSignals;

TEST_CASE("peer_all_reduce: one-shot for little data") {
  CHECK(kernels::cuda::prefers_one_shot(int64_t{16} << 20, 2));
  CHECK(kernels::cuda::prefers_one_shot(16 << 10, 8));
  CHECK_FALSE(kernels::cuda::prefers_one_shot(256 << 10, 8));
  CHECK(kernels::cuda::prefers_one_shot(256 << 10, 4));
}

TEST_CASE("peer_all_reduce refuses what it cannot do") {
  Peers peers;
  peers.ranks = 9;
  CHECK_THROWS_AS(kernels::cuda::peer_all_reduce(peers, nullptr, 8, Dtype::fp32, true, nullptr), core::Error);
  peers.ranks = 2;
  CHECK_THROWS_AS(kernels::cuda::peer_all_reduce(peers, nullptr, 3, Dtype::fp32, true, nullptr), core::Error);
  CHECK_THROWS_AS(kernels::cuda::peer_all_reduce(peers, nullptr, 16, Dtype::fp8, true, nullptr), core::Error);
}

#ifdef DRYDOCK_SIMT_EMULATOR  // several GPUs are needed otherwise

// GPUs that are pieces of the host's memory; their launches run at once and wait for each other.
template <typename T>
struct Machine {
  std::vector<std::vector<T>> inputs, parts, outs;
  std::vector<PeerSignals> signals;
  std::vector<Peers> peers;

  Machine(int ranks, int64_t count, std::vector<T> (*numbers)(int64_t, uint32_t))
      : signals(static_cast<size_t>(ranks)) {
    for (int r = 0; r < ranks; ++r) {
      inputs.push_back(numbers(count, 50U + static_cast<uint32_t>(r)));
      parts.emplace_back(static_cast<size_t>(count));
      outs.emplace_back(static_cast<size_t>(count));
    }
    for (int r = 0; r < ranks; ++r) {
      Peers one;
      one.rank = r;
      one.ranks = ranks;
      for (int p = 0; p < ranks; ++p) {
        one.inputs[p] = inputs[static_cast<size_t>(p)].data();
        one.parts[p] = parts[static_cast<size_t>(p)].data();
        one.signals[p] = &signals[static_cast<size_t>(p)];
      }
      peers.push_back(one);
    }
  }

  void reduce(bool one_shot) {
    kernels::cuda::emulator::run_together([&] {
      for (size_t r = 0; r < peers.size(); ++r)
        kernels::cuda::peer_all_reduce(peers[r], outs[r].data(), static_cast<int64_t>(outs[r].size()),
                                       dtype_of(outs[r].data()), one_shot, nullptr);
    });
  }
};

template <typename T>
void test_reduce(int ranks, int64_t count, bool one_shot, std::vector<T> (*numbers)(int64_t, uint32_t),
                 double relative) {
  Machine<T> machine(ranks, count, numbers);
  machine.reduce(one_shot);
  machine.reduce(one_shot);  // barriers count on from where they were
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    double want = 0;
    for (const std::vector<T>& input : machine.inputs) want += kernels::to_float(input[i]);
    for (const std::vector<T>& out : machine.outs) {
      // Rounded once to T; fp32 sums of up to 8 numbers below 1 are off by less than 8 * 2^-22.
      REQUIRE(std::abs(kernels::to_float(out[i]) - want) <= std::abs(want) * relative + 0x1p-19);
      REQUIRE(kernels::to_float(out[i]) == kernels::to_float(machine.outs[0][i]));  // the same everywhere
    }
  }
}

std::vector<Bf16> ranks_bf16(int64_t count, uint32_t seed) { return random_bf16(count, seed); }

TEST_CASE("peer_all_reduce sums over GPUs, the same bits on each") {
  for (const bool one_shot : {true, false}) {
    test_reduce<float>(2, 40, one_shot, random_floats, 0);
    test_reduce<Bf16>(3, 8 * 1001, one_shot, ranks_bf16, 1.0 / 256);
  }
  using kernels::cuda::emulator::Order;
  kernels::cuda::emulator::set_order(Order::random, 5);
  test_reduce<float>(4, 4 * 700, false, random_floats, 0);
  kernels::cuda::emulator::set_order(Order::forward);
}

#endif

}  // namespace
}  // namespace drydock::tests
