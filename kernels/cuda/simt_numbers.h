#pragma once
// Storage formats and their conversions: bfloat16 and fp8 e4m3 (finite, NaN 0x7f, largest 448), round to nearest even,
// fp8 saturating; and vectors of them that load in one instruction.
#include <cstdint>

#ifdef DRYDOCK_SIMT_EMULATOR
#include "tests/simt/simt_emulator.h"
#else
#include "kernels/cuda/simt_cuda.h"
#endif

namespace drydock::kernels::cuda {

struct Bf16 {
  uint16_t bits;
};
struct Fp8 {
  uint8_t bits;
};
struct Float2 {
  float x, y;
};
inline constexpr float kLargestFp8 = 448.0F;

// `N` neighbours, aligned to their whole size (16 bytes at most move in one instruction).
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
  T values[N];
  __host__ __device__ T& operator[](int i) { return values[i]; }
  __host__ __device__ const T& operator[](int i) const { return values[i]; }
};
using Word4 = Vector<uint32_t, 4>;

// `from` aligned to the vector.
template <int N, typename T>
__device__ __forceinline__ Vector<T, N> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, N>*>(from);
}
template <int N, typename T>
__device__ __forceinline__ void store_vector(T* to, const Vector<T, N>& vector) {
  *reinterpret_cast<Vector<T, N>*>(to) = vector;
}
// 16 bytes that are read once by the whole grid (weights, a cache): not kept in L1.
__device__ __forceinline__ Word4 load_streaming(const void* from);

#ifdef DRYDOCK_SIMT_EMULATOR
inline Word4 load_streaming(const void* from) { return *static_cast<const Word4*>(from); }
inline uint32_t float_bits(float x) { return std::bit_cast<uint32_t>(x); }
inline float bits_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float to_float(float x) { return x; }
inline float to_float(Bf16 x) { return emulator::bf16_to_float(x.bits); }
inline float to_float(Fp8 x) { return emulator::e4m3_to_float(x.bits); }
inline Bf16 to_bf16(float x) { return {emulator::float_to_bf16(x)}; }
inline Fp8 to_fp8(float x) { return {emulator::float_to_e4m3(x)}; }
inline uint32_t pack_bf16(float low, float high) {
  return static_cast<uint32_t>(to_bf16(low).bits) | static_cast<uint32_t>(to_bf16(high).bits) << 16U;
}
inline Float2 unpack_bf16(uint32_t pair) {
  return {emulator::bf16_to_float(static_cast<uint16_t>(pair)),
          emulator::bf16_to_float(static_cast<uint16_t>(pair >> 16U))};
}
inline Float2 unpack_fp8(uint16_t pair) {
  return {emulator::e4m3_to_float(static_cast<uint8_t>(pair)),
          emulator::e4m3_to_float(static_cast<uint8_t>(pair >> 8U))};
}
inline uint16_t pack_fp8(float low, float high) {
  return static_cast<uint16_t>(to_fp8(low).bits | to_fp8(high).bits << 8U);
}
inline uint32_t fp8_pair_to_bf16(uint16_t pair) {
  const Float2 numbers = unpack_fp8(pair);
  return pack_bf16(numbers.x, numbers.y);
}
#else
__device__ __forceinline__ Word4 load_streaming(const void* from) {
  Word4 out;
  // Not .nc, which is for memory that nothing writes from the kernel's start on: with programmatic launches that is
  // before dependency_wait().
  asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "l"(from));
  return out;
}
__device__ __forceinline__ uint32_t float_bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float bits_float(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16U); }
// Two e4m3 in the low half of a register as two fp16, which hold every e4m3 number.
__device__ __forceinline__ uint32_t fp8_pair_to_half(uint32_t pair) {
#if __CUDA_ARCH__ >= 890
  const __half2_raw halves = __nv_cvt_fp8x2_to_halfraw2(static_cast<uint16_t>(pair), __NV_E4M3);
  return static_cast<uint32_t>(halves.x) | static_cast<uint32_t>(halves.y) << 16U;
#else
  // No instruction converts: exponent and mantissa at fp16's places are the number times 2^-8, since the exponents are
  // biased by 7 and 15; subnormal ones, too. NaN becomes 480.
  const uint32_t spread = __byte_perm(pair, 0, 0x4140);
  const uint32_t scaled = (spread & 0x00800080U) << 8U | (spread & 0x007f007fU) << 7U;
  const __half2 product = __hmul2(*reinterpret_cast<const __half2*>(&scaled), __float2half2_rn(256.0F));
  return *reinterpret_cast<const uint32_t*>(&product);
#endif
}
__device__ __forceinline__ Float2 unpack_fp8(uint16_t pair) {
  const uint32_t halves = fp8_pair_to_half(pair);
  const float2 numbers = __half22float2(*reinterpret_cast<const __half2*>(&halves));
  return {numbers.x, numbers.y};
}
__device__ __forceinline__ float to_float(Fp8 x) { return unpack_fp8(x.bits).x; }
__device__ __forceinline__ Bf16 to_bf16(float x) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }
__device__ __forceinline__ uint16_t pack_fp8(float low, float high) {
  return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}
__device__ __forceinline__ Fp8 to_fp8(float x) { return {__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3)}; }
// Two numbers in one register, `low` at the lower address.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ Float2 unpack_bf16(uint32_t pair) {
  return {__uint_as_float(pair << 16U), __uint_as_float(pair & 0xffff0000U)};
}
// Exact: every e4m3 number is a bfloat16.
__device__ __forceinline__ uint32_t fp8_pair_to_bf16(uint16_t pair) {
  const Float2 numbers = unpack_fp8(pair);
  return pack_bf16(numbers.x, numbers.y);
}
#endif

// A float as the element type T of a store.
template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ Bf16 from_float<Bf16>(float x) {
  return to_bf16(x);
}
template <>
__device__ __forceinline__ Fp8 from_float<Fp8>(float x) {
  return to_fp8(x);
}

}  // namespace drydock::kernels::cuda
