// Vectors as wide as the instruction set that the including file is built for. Everything is in a namespace of its own,
// DRYDOCK_ISA, and no inline function of another header may be called: the linker keeps one copy of those, which could
// be the one with instructions that the processor lacks.
#include <cstddef>
#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/isa.h"

namespace drydock::kernels::cpu::DRYDOCK_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Floats = float __attribute__((vector_size(kLanes * 4)));
using Ints = int32_t __attribute__((vector_size(kLanes * 4)));
using Words = uint32_t __attribute__((vector_size(kLanes * 4)));
using Halves = uint16_t __attribute__((vector_size(kLanes * 2)));
using Bytes = uint8_t __attribute__((vector_size(kLanes)));

#define DRYDOCK_INLINE inline __attribute__((always_inline))

template <typename V>
DRYDOCK_INLINE V load(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(V));
  return v;
}

template <typename V>
DRYDOCK_INLINE void store(void* to, V v) {
  __builtin_memcpy(to, &v, sizeof(V));
}

DRYDOCK_INLINE Floats all(float x) { return x - Floats{}; }  // x + 0 would be computed, for the sake of -0
DRYDOCK_INLINE Floats as_floats(Words x) { return (Floats)x; }
DRYDOCK_INLINE Words as_words(Floats x) { return (Words)x; }

// Small unsigned numbers to 32 bits; of these conversions GCC 12 makes a dozen instructions.
#if defined(__AVX512F__)
DRYDOCK_INLINE Words words_of(Halves x) { return (Words)_mm512_maskz_cvtepu16_epi32(0xFFFF, (__m256i)x); }
DRYDOCK_INLINE Words words_of(Bytes x) { return (Words)_mm512_maskz_cvtepu8_epi32(0xFFFF, (__m128i)x); }
#elif defined(__AVX2__)
DRYDOCK_INLINE Words words_of(Halves x) { return (Words)_mm256_cvtepu16_epi32((__m128i)x); }
DRYDOCK_INLINE Words words_of(Bytes x) { return (Words)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)x)); }
#else
DRYDOCK_INLINE Words words_of(Halves x) { return __builtin_convertvector(x, Words); }
DRYDOCK_INLINE Words words_of(Bytes x) { return __builtin_convertvector(x, Words); }
#endif

// Storage formats: `load` takes kLanes elements, `part` fewer, the rest 0.
struct StoredFloat {
  using Element = float;
  static DRYDOCK_INLINE Floats to_floats(Floats x) { return x; }
  using Raw = Floats;
};

struct StoredBf16 {
  using Element = uint16_t;
  using Raw = Halves;
  static DRYDOCK_INLINE Floats to_floats(Halves x) { return as_floats(words_of(x) << 16); }
  static DRYDOCK_INLINE Halves from_floats(Floats x) {
    const Words bits = as_words(x);
    const Words rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    return __builtin_convertvector(x == x ? rounded : (bits >> 16) | 0x40u, Halves);
  }
};

// As in element.h, every branch a select.
struct StoredFp8 {
  using Element = uint8_t;
  using Raw = Bytes;
#if defined(__AVX512F__)
  // As fp16 numbers, which have one more bit of exponent and a bias larger by 8; those convert in hardware.
  static DRYDOCK_INLINE Floats to_floats(Bytes x) {
    const __m256i upper = _mm256_slli_epi16(_mm256_cvtepu8_epi16((__m128i)x), 8);
    const __m256i half = _mm256_and_si256(_mm256_srai_epi16(upper, 1), _mm256_set1_epi16(static_cast<short>(0xBF80)));
    const __m256i most = _mm256_set1_epi16(0x3F80);
    const __mmask16 nan = _mm256_cmpeq_epi16_mask(_mm256_and_si256(half, most), most);
    const __m256i marked = _mm256_mask_blend_epi16(nan, half, _mm256_set1_epi16(0x7E00));
    return (Floats)_mm512_maskz_cvtph_ps(0xFFFF, marked) * 256.0F;
  }
#else
  static DRYDOCK_INLINE Floats to_floats(Bytes x) {
    const Words wide = words_of(x), magnitude = wide & 0x7Fu;
    // Below 8 the number is magnitude * 2^-9: as the fraction of a number in [2^-6, 2^-5), less 2^-6.
    const Ints subnormal = (Ints)magnitude < 8;
    const Floats shifted = as_floats((magnitude << 20) + (120u << 23) + ((Words)subnormal & (1u << 23)));
    const Floats value = shifted - as_floats((Words)subnormal & as_words(all(0x1p-6F)));
    const Words nan = (Words)((Ints)magnitude == 0x7F) & 0x7FC00000u;
    return as_floats(as_words(value) | nan | ((wide & 0x80u) << 24));
  }
#endif
  static DRYDOCK_INLINE Bytes from_floats(Floats x) {
    const Words bits = as_words(x), magnitude = bits & 0x7FFFFFFFu, sign = (bits >> 24) & 0x80u;
    const Words tiny = as_words(as_floats(magnitude) + 0x1p14F) - as_words(all(0x1p14F));
    const Words normal = (magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u) - (120u << 23)) >> 20;
    const Floats size = as_floats(magnitude);
    Words code = size < 0x1p-6F ? tiny : normal;
    code = size >= 448.0F ? Words{} + 0x7Eu : code;
    code = x == x ? code : Words{} + 0x7Fu;
    return __builtin_convertvector(code | sign, Bytes);
  }
};

template <typename Stored>
DRYDOCK_INLINE Floats load_as(const typename Stored::Element* from) {
  return Stored::to_floats(load<typename Stored::Raw>(from));
}

// `count` < kLanes elements, then zeros.
template <typename Stored>
DRYDOCK_INLINE Floats load_part(const typename Stored::Element* from, int64_t count) {
  typename Stored::Raw raw{};
  __builtin_memcpy(&raw, from, static_cast<size_t>(count) * sizeof(*from));
  return Stored::to_floats(raw);
}

DRYDOCK_INLINE void store_part(float* to, Floats v, int64_t count) {
  __builtin_memcpy(to, &v, static_cast<size_t>(count) * sizeof(float));
}

// Interleaves the lower (upper) halves of a and b.
template <bool kUpper>
DRYDOCK_INLINE Floats zip(Floats a, Floats b) {
#if defined(__AVX512F__)
  if constexpr (kUpper)
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  else
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX2__)
  if constexpr (kUpper)
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  else
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  if constexpr (kUpper)
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
  else
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}

// Rows become columns: log2(kLanes) rounds of zipping row i with row i + kLanes / 2. (Recursion, as GCC would leave the
// rows of a loop over rounds in memory.)
template <int kRound = 1>
DRYDOCK_INLINE void transpose(Floats (&rows)[kLanes]) {
  Floats next[kLanes];
  for (int i = 0; i < kLanes / 2; ++i) {
    next[2 * i] = zip<false>(rows[i], rows[i + kLanes / 2]);
    next[2 * i + 1] = zip<true>(rows[i], rows[i + kLanes / 2]);
  }
  for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  if constexpr (2 * kRound < kLanes) transpose<2 * kRound>(rows);
}

// Lane i of the result is the sum of the lanes of rows[i]; the order of additions is always the same.
template <int kLeft = kLanes / 2>
DRYDOCK_INLINE Floats lane_sums(Floats (&rows)[kLanes]) {
  for (int i = 0; i < kLeft; ++i) rows[i] = zip<false>(rows[i], rows[i + kLeft]) + zip<true>(rows[i], rows[i + kLeft]);
  if constexpr (kLeft > 1) return lane_sums<kLeft / 2>(rows);
  return rows[0];
}

DRYDOCK_INLINE float lane_sum(Floats x) {
  float sums[kLanes];
  store(sums, x);
  for (int left = kLanes / 2; left > 0; left /= 2)
    for (int i = 0; i < left; ++i) sums[i] += sums[i + left];
  return sums[0];
}

// out[i] = lane_sum(x[i]), to the bit, many at once where there are many.
template <int kCount>
DRYDOCK_INLINE void sum_lanes(const Floats (&x)[kCount], float (&out)[kCount]) {
  int first = 0;
  for (; kCount - first >= kLanes / 2; first += kLanes) {
    Floats rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = first + i < kCount ? x[first + i] : Floats{};
    store_part(out + first, lane_sums(rows), kCount - first < kLanes ? kCount - first : kLanes);
  }
  for (; first < kCount; ++first) out[first] = lane_sum(x[first]);
}

DRYDOCK_INLINE float lane_max(Floats x) {
  float most[kLanes];
  store(most, x);
  for (int i = 1; i < kLanes; ++i) most[0] = most[i] > most[0] ? most[i] : most[0];
  return most[0];
}

// e^x within 2 units in the last place for x in [-87, 88]; below it gives 0, above e^88; NaN stays NaN. Cody and
// Waite's reduction by multiples of ln 2 and the minimax polynomial of Cephes' expf (Moshier).
DRYDOCK_INLINE Floats exponential(Floats x) {
  const Floats clamped = x > 88.0F ? all(88.0F) : x;
  const Floats magic = all(0x1.8p23F);  // leaves whole numbers in the low bits
  const Floats shifted = clamped * 1.44269504F + magic;
  const Floats whole = shifted - magic;
  Floats r = clamped - whole * 0.693359375F;
  r = r + whole * 2.12194440e-4F;
  Floats p = all(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const Words power = (as_words(shifted) - as_words(magic) + 127u) << 23;
  return x < -87.0F ? Floats{} : p * as_floats(power);
}

// Calls body(Stored{}) for the format.
template <typename Body>
DRYDOCK_INLINE void with_format(core::Dtype dtype, Body&& body) {
  if (dtype == core::Dtype::fp32)
    body(StoredFloat{});
  else if (dtype == core::Dtype::bf16)
    body(StoredBf16{});
  else
    body(StoredFp8{});
}

}  // namespace
}  // namespace drydock::kernels::cpu::DRYDOCK_ISA
