// The emulator that stands in for a GPU: that it computes what the PTX ISA says, and that it catches what it should.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

std::string message(const std::function<void()>& run) {
  try {
    run();
  } catch (const core::Error& error) {
    return error.what();
  }
  return "";
}

void reverse_in_block(const int* in, int* out, int forget_barrier) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  int* const shared = reinterpret_cast<int*>(bytes);
  const int i = static_cast<int>(threadIdx.x), last = static_cast<int>(blockDim.x) - 1;
  const int base = static_cast<int>(blockIdx.x * blockDim.x);
  shared[i] = in[base + i];
  if (forget_barrier == 0) sync_block();
  out[base + i] = shared[last - i];
}

TEST_CASE("threads of a block meet at barriers, in any order") {
  std::vector<int> in(256), out(256), want(256);
  for (int i = 0; i < 256; ++i) {
    in[i] = i;
    want[i] = i / 64 * 64 + 63 - i % 64;
  }
  for (const auto order : {emulator::Order::forward, emulator::Order::reverse, emulator::Order::random}) {
    emulator::set_order(order);
    const LaunchShape shape{.grid_x = 4, .threads = 64, .shared_bytes = 64 * sizeof(int)};
    launch(reverse_in_block, shape, nullptr, in.data(), out.data(), 0);
    CHECK(out == want);
    launch(reverse_in_block, shape, nullptr, in.data(), out.data(), 1);
    CHECK(out != want);  // the missing barrier shows
  }
  emulator::set_order(emulator::Order::forward);
}

void reduce(const float* in, float* sum, float* largest, uint32_t* bits) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  float* const scratch = reinterpret_cast<float*>(bytes);
  const float value = in[threadIdx.x];
  const float total = block_sum(value, scratch), top = block_max(value, scratch);
  const uint32_t odd = ballot(threadIdx.x % 2 == 1);
  if (threadIdx.x == 0) {
    *sum = total;
    *largest = top;
    *bits = odd;
  }
}

TEST_CASE("warp and block reductions") {
  std::vector<float> in(128);
  for (int i = 0; i < 128; ++i) in[i] = static_cast<float>((i * 37) % 128);
  float sum = 0, largest = 0;
  uint32_t bits = 0;
  launch(reduce, {.threads = 128, .shared_bytes = 128}, nullptr, in.data(), &sum, &largest, &bits);
  CHECK(sum == 127 * 64);  // 37 is odd, so that every number below 128 comes once
  CHECK(largest == 127);
  CHECK(bits == 0xaaaaaaaaU);
}

void multiply_bf16(const Bf16* a, const Bf16* b, float* c) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  Bf16* const shared_a = reinterpret_cast<Bf16*>(bytes);  // (16, 16)
  Bf16* const shared_b = shared_a + 256;                  // (16, 16): k, n
  const int lane = lane_index();
  copy_async_16(shared_a + lane * 8, a + lane * 8);
  copy_async_16(shared_b + lane * 8, b + lane * 8);
  copy_async_commit();
  copy_async_wait<0>();
  sync_block();
  uint32_t left[4], right[4];
  load_matrix_x4(left, shared_a + lane % 16 * 16 + lane / 16 * 8);
  load_matrix_x4_transposed(right, shared_b + lane % 16 * 16 + lane / 16 * 8);
  float low[4] = {}, high[4] = {};
  mma_bf16(low, left, right[0], right[1]);
  mma_bf16(high, left, right[2], right[3]);
  for (int r = 0; r < 4; ++r) {
    const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    c[row * 16 + column] = low[r];
    c[row * 16 + column + 8] = high[r];
  }
}

TEST_CASE("ldmatrix and mma.m16n8k16 multiply matrices") {
  std::vector<Bf16> a(256), b(256);
  std::vector<float> c(256), want(256);
  for (int i = 0; i < 256; ++i) {
    a[i] = to_bf16(static_cast<float>(i * 7 % 13 - 6));
    b[i] = to_bf16(static_cast<float>(i * 5 % 11 - 5));
  }
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j)
      for (int k = 0; k < 16; ++k) want[i * 16 + j] += to_float(a[i * 16 + k]) * to_float(b[k * 16 + j]);
  launch(multiply_bf16, {.threads = 32, .shared_bytes = 1024}, nullptr, a.data(), b.data(), c.data());
  CHECK(c == want);  // small whole numbers: exact
}

TEST_CASE("bfloat16 and e4m3 round to nearest even") {
  CHECK(to_bf16(1.0F).bits == 0x3f80);
  CHECK(to_bf16(1.00390625F).bits == 0x3f80);  // 1 + 2^-8: half way, to even
  CHECK(to_bf16(1.01171875F).bits == 0x3f82);  // 1 + 3 * 2^-8: half way, to even
  for (unsigned bits = 0; bits < 256; ++bits) {
    if ((bits & 127U) == 127U) continue;
    CHECK(to_fp8(to_float(Fp8{static_cast<uint8_t>(bits)})).bits == bits);
  }
  CHECK(to_float(Fp8{0x7e}) == 448);
  CHECK(to_float(Fp8{0x01}) == 0x1p-9F);
  CHECK(to_float(to_fp8(1e9F)) == 448);
  CHECK(to_float(to_fp8(17.0F)) == 16);  // steps of 2: half way, to even
  CHECK(to_float(to_fp8(19.0F)) == 20);
}

void half_a_barrier() {
  if (threadIdx.x < 32) sync_block();
}
void lone_lane(float* out) {
  if (threadIdx.x == 3) out[0] = shuffle(1.0F, 0);
}
[[maybe_unused]] void write_beyond() {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  bytes[64 + threadIdx.x] = 1;
}
void never_comes(const uint32_t* flag) {
  while (load_acquire_system(flag) == 0) pause();
}

TEST_CASE("errors of a kernel are reported") {
  float out = 0;
  const uint32_t flag = 0;
  CHECK(message([] { launch(half_a_barrier, {.threads = 64}, nullptr); }).find("waits for ever at barrier 0") !=
        std::string::npos);
  CHECK(message([&] { launch(lone_lane, {.threads = 32}, nullptr, &out); }).find("thread 3") != std::string::npos);
  CHECK(message([&] { launch(never_comes, {.threads = 32}, nullptr, &flag); }).find("pause") != std::string::npos);
  CHECK(message([] { launch(half_a_barrier, {.threads = 33}, nullptr); }).find("multiple of 32") != std::string::npos);
#if !defined(__SANITIZE_ADDRESS__)  // which ends the program instead
  CHECK(message([] { launch(write_beyond, {.threads = 32, .shared_bytes = 64}, nullptr); }).find("wrote beyond") !=
        std::string::npos);
#endif
}

void copy_row(const float* in, float* out, int wait) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  float* const shared = reinterpret_cast<float*>(bytes);
  copy_async_16(shared + threadIdx.x * 4, in + threadIdx.x * 4, threadIdx.x != 5);
  copy_async_commit();
  if (wait != 0) copy_async_wait<0>();
  sync_block();
  for (unsigned i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = shared[threadIdx.x * 4 + i];
}

TEST_CASE("asynchronous copies come at the wait") {
  std::vector<float> in(128), out(128);
  for (size_t i = 0; i < 128; ++i) in[i] = static_cast<float>(i);
  launch(copy_row, {.threads = 32, .shared_bytes = 512}, nullptr, in.data(), out.data(), 1);
  for (size_t i = 0; i < 128; ++i) CHECK(out[i] == (i / 4 == 5 ? 0 : in[i]));  // thread 5's is not valid
  launch(copy_row, {.threads = 32, .shared_bytes = 512}, nullptr, in.data(), out.data(), 0);
  for (const float x : out) CHECK(std::isnan(x));
}

void hand_over(int* out) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  int* const shared = reinterpret_cast<int*>(bytes);
  if (warp_index() == 2) return;  // takes no part in barrier 1
  if (warp_index() == 0) shared[lane_index()] = lane_index();
  named_barrier(1, 64);
  if (warp_index() == 1) out[lane_index()] = shared[31 - lane_index()];
}

TEST_CASE("named barriers join some warps of a block") {
  for (const auto order : {emulator::Order::forward, emulator::Order::reverse, emulator::Order::random}) {
    emulator::set_order(order);
    std::vector<int> out(32);
    launch(hand_over, {.threads = 96, .shared_bytes = 128}, nullptr, out.data());
    for (size_t i = 0; i < 32; ++i) CHECK(out[i] == 31 - static_cast<int>(i));
  }
  emulator::set_order(emulator::Order::forward);
}

void meet(uint32_t* mine, uint32_t* other, int* out) {
  if (threadIdx.x != 0) return;
  store_release_system(mine, 1);
  while (load_acquire_system(other) == 0) pause();
  *out = 1;
}

TEST_CASE("launches can wait for each other") {
  uint32_t flags[2] = {};
  int out[2] = {};
  emulator::run_together([&] {
    launch(meet, {.threads = 32}, nullptr, &flags[0], &flags[1], &out[0]);
    launch(meet, {.threads = 32}, nullptr, &flags[1], &flags[0], &out[1]);
  });
  CHECK(out[0] + out[1] == 2);
}

}  // namespace
}  // namespace drydock::kernels::cuda
