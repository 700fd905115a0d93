#pragma once
// Storage of bf16 and fp8 (e4m3) numbers and how they round, on the host.
#include <bit>
#include <cmath>
#include <cstdint>

namespace drydock::kernels {

// bfloat16: the upper half of an fp32.
struct Bf16 {
  uint16_t bits = 0;
};

// OCP FP8 E4M3 ("OCP 8-bit Floating Point Specification", rev 1.0): bias 7, no infinity, 0x7F and 0xFF are NaN.
struct Fp8 {
  uint8_t bits = 0;
};

inline constexpr float kLargestFp8 = 448;

inline constexpr float to_float(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline constexpr float to_float(float x) { return x; }

inline constexpr float to_float(Fp8 x) {
  const uint32_t magnitude = x.bits & 0x7Fu;
  float value = 0;
  if (magnitude == 0x7F)
    value = std::bit_cast<float>(0x7FC00000u);
  else if (magnitude < 8)
    value = static_cast<float>(magnitude) * 0x1p-9F;
  else
    value = std::bit_cast<float>((magnitude << 20) + (120u << 23));  // exponent bias 127 in place of 7
  return (x.bits & 0x80) != 0 ? -value : value;
}

// To nearest, ties to even; NaN stays NaN and too large becomes infinity.
inline constexpr Bf16 to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

// To nearest, ties to even; beyond 448, infinity included, saturates; NaN stays NaN.
inline constexpr Fp8 to_fp8(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7FFFFFFFu;
  const uint32_t sign = (bits >> 24) & 0x80u;
  if (magnitude > 0x7F800000u) return {static_cast<uint8_t>(sign | 0x7Fu)};
  if (magnitude >= std::bit_cast<uint32_t>(kLargestFp8)) return {static_cast<uint8_t>(sign | 0x7Eu)};
  if (magnitude < std::bit_cast<uint32_t>(0x1p-6F)) {
    // Adding 2^14 leaves units of 2^-9, fp8's smallest step, in the last place of the sum, rounded as fp32 rounds.
    const uint32_t sum = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14F);
    return {static_cast<uint8_t>(sign | (sum - std::bit_cast<uint32_t>(0x1p14F)))};
  }
  const uint32_t rounded = magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u);
  return {static_cast<uint8_t>(sign | ((rounded - (120u << 23)) >> 20))};
}

template <typename T>
constexpr T from_float(float x);
template <>
constexpr float from_float<float>(float x) {
  return x;
}
template <>
constexpr Bf16 from_float<Bf16>(float x) {
  return to_bf16(x);
}
template <>
constexpr Fp8 from_float<Fp8>(float x) {
  return to_fp8(x);
}

}  // namespace drydock::kernels
