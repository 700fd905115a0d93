#pragma once
// The words of kernels/cuda/simt.h on the CPU. Each thread of a block is a fiber of one OS thread; blocks run one after
// another. An error in a kernel (threads that wait for ever, lanes of a warp at different operations, writes beyond the
// dynamic shared memory) is thrown by launch() as core::Error.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#include "kernels/cuda/stream.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ static
#define DRYDOCK_SM90A 0
#define DRYDOCK_SM100A 0
#define threadIdx (::drydock::kernels::cuda::emulator::current().thread)
#define blockIdx (::drydock::kernels::cuda::emulator::current().block)
#define blockDim (::drydock::kernels::cuda::emulator::current().block_extent)
#define gridDim (::drydock::kernels::cuda::emulator::current().grid_extent)
#define DRYDOCK_DYNAMIC_SHARED(name) \
  unsigned char* const name = ::drydock::kernels::cuda::emulator::current().dynamic_shared

namespace drydock::kernels::cuda::emulator {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};
struct Coordinates {
  Extent thread, block, block_extent, grid_extent;
  unsigned char* dynamic_shared = nullptr;
};
// Of the emulated thread that runs.
const Coordinates& current();

// In which order the threads that can run do so, and the blocks of a grid: a missing barrier gives a wrong result in
// one of them. Every test should pass in all three.
enum class Order : uint8_t { forward, reverse, random };
void set_order(Order order, uint64_t seed = 1);

void set_multiprocessors(int count);  // what multiprocessors() answers; 4 at first

// Runs what `launches` launches all at once, every block of it, so that blocks may wait for one another.
void run_together(const std::function<void()>& launches);

// The rest is what the words below are made of.
void run(const LaunchShape& shape, std::function<void()> thread_body);
void barrier(int id, int threads);
void yield();

struct alignas(16) Slot {
  unsigned char bytes[64];
};
// Called once, when all lanes have come: `out[lane]` from all `in`.
using WarpOperation = void (*)(const Slot* in, Slot* out);
void warp_operation(WarpOperation operation, const void* in, size_t in_bytes, void* out, size_t out_bytes);

void copy_async(void* to, const void* from);  // from null: zeros
void copy_async_commit();
void copy_async_wait(int pending);

float bf16_to_float(uint16_t bits);
uint16_t float_to_bf16(float x);
float e4m3_to_float(uint8_t bits);
uint8_t float_to_e4m3(float x);

// One register of each lane: a value and the lane it is wanted from.
template <typename T>
struct Shuffled {
  T value;
  int lane;
};
template <typename T>
void shuffle_slots(const Slot* in, Slot* out) {
  for (int lane = 0; lane < 32; ++lane) {
    Shuffled<T> wish;
    std::memcpy(&wish, &in[lane], sizeof(wish));
    std::memcpy(&out[lane], &in[wish.lane % 32], sizeof(T));
  }
}
void ballot_slots(const Slot* in, Slot* out);

}  // namespace drydock::kernels::cuda::emulator

namespace drydock::kernels::cuda {

inline void sync_block() { emulator::barrier(0, static_cast<int>(blockDim.x)); }
void sync_warp();
inline void named_barrier(int id, int threads) { emulator::barrier(id, threads); }
inline void keep_order() {}
inline void memory_fence() {}
inline void memory_fence_system() {}
inline uint32_t load_acquire_system(const uint32_t* address) { return *address; }
inline void store_release_system(uint32_t* address, uint32_t value) { *address = value; }
inline void pause() { emulator::yield(); }

template <typename T>
T atomic_add(T* address, T value) {
  const T old = *address;
  *address = static_cast<T>(old + value);
  return old;
}
template <typename T>
T atomic_max(T* address, T value) {
  const T old = *address;
  *address = std::max(old, value);
  return old;
}

inline float fast_exp2(float x) { return std::exp2(x); }
inline float fast_exp(float x) { return std::exp(x); }
inline float fast_divide(float x, float y) { return x / y; }
inline float fast_sin(float x) { return std::sin(x); }
inline float fast_cos(float x) { return std::cos(x); }
inline float reciprocal_sqrt(float x) { return 1.0F / std::sqrt(x); }

inline void copy_async_16(void* shared, const void* global, bool valid = true) {
  emulator::copy_async(shared, valid ? global : nullptr);
}
inline void copy_async_commit() { emulator::copy_async_commit(); }
template <int Pending>
void copy_async_wait() {
  emulator::copy_async_wait(Pending);
}
inline void dependency_wait() {}
inline void dependency_launch() {}

template <typename T>
T shuffle(T value, int lane) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(emulator::Shuffled<T>) <= sizeof(emulator::Slot));
  const emulator::Shuffled<T> wish{value, lane};
  T out;
  emulator::warp_operation(emulator::shuffle_slots<T>, &wish, sizeof(wish), &out, sizeof(out));
  return out;
}
template <typename T>
T shuffle_xor(T value, int mask) {
  return shuffle(value, static_cast<int>(threadIdx.x) % 32 ^ mask);
}
template <typename T>
T shuffle_up(T value, int distance) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return shuffle(value, lane < distance ? lane : lane - distance);
}
uint32_t ballot(bool predicate);
inline int count_bits(uint32_t bits) { return std::popcount(bits); }
inline int lowest_bit(uint32_t bits) { return std::countr_zero(bits); }

void load_matrix_x4(uint32_t (&out)[4], const void* row);
void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row);
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void mma_fp8(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream, Arguments&&... arguments) {
  emulator::run(shape, [kernel, ... values = static_cast<Parameters>(arguments)] { kernel(values...); });
}
inline void clear(void* address, size_t bytes, Stream) { std::memset(address, 0, bytes); }
int multiprocessors();
inline int most_shared_bytes() { return 160 * 1024; }
inline int compute_capability() { return 80; }

}  // namespace drydock::kernels::cuda
