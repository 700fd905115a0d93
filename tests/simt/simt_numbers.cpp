// Conversions and tensor-core products of the emulator, from the formats' definitions and the PTX ISA's fragments.
#include <array>

#include "tests/simt/simt_emulator.h"

namespace drydock::kernels::cuda {
namespace emulator {
namespace {

float decode_e4m3(unsigned bits) {
  const unsigned exponent = bits >> 3U & 15U, mantissa = bits & 7U;
  if (exponent == 15 && mantissa == 7) return std::nanf("");
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), static_cast<int>(exponent) - 10);
  return (bits & 128U) != 0 ? -magnitude : magnitude;
}

std::array<float, 256> e4m3_table() {
  std::array<float, 256> table{};
  for (unsigned bits = 0; bits < 256; ++bits) table[bits] = decode_e4m3(bits);
  return table;
}

struct MmaIn {
  float c[4];
  uint32_t a[4], b[2];
};
static_assert(sizeof(MmaIn) <= sizeof(Slot));

float element(uint32_t word, int i, bool fp8) {
  if (fp8) return e4m3_to_float(static_cast<uint8_t>(word >> (8 * i)));
  return bf16_to_float(static_cast<uint16_t>(word >> (16 * i)));
}

// `per_word` elements a register: 2 of bf16 (k = 16), 4 of e4m3 (k = 32).
void mma_slots(const Slot* in, Slot* out, bool fp8) {
  const int per_word = fp8 ? 4 : 2, depth = 8 * per_word;
  float a[16][32], b[8][32];
  for (int lane = 0; lane < 32; ++lane) {
    MmaIn registers;
    std::memcpy(&registers, &in[lane], sizeof(registers));
    const int group = lane / 4, first = lane % 4 * per_word;
    for (int i = 0; i < per_word; ++i) {
      for (int r = 0; r < 4; ++r) a[group + r % 2 * 8][first + i + r / 2 * depth / 2] = element(registers.a[r], i, fp8);
      for (int r = 0; r < 2; ++r) b[group][first + i + r * depth / 2] = element(registers.b[r], i, fp8);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float c[4];
    std::memcpy(c, &in[lane], sizeof(c));
    for (int r = 0; r < 4; ++r) {
      const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
      for (int k = 0; k < depth; ++k) c[r] += a[row][k] * b[column][k];
    }
    std::memcpy(&out[lane], c, sizeof(c));
  }
}
void mma_bf16_slots(const Slot* in, Slot* out) { mma_slots(in, out, false); }
void mma_fp8_slots(const Slot* in, Slot* out) { mma_slots(in, out, true); }

void matrix_slots(const Slot* in, Slot* out, bool transposed) {
  uint16_t elements[4][8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const void* row = nullptr;
    std::memcpy(&row, &in[lane], sizeof(row));
    std::memcpy(elements[lane / 8][lane % 8], row, 16);
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix)
      for (int i = 0; i < 2; ++i) {
        const int outer = lane / 4, inner = lane % 4 * 2 + i;
        const uint16_t value = transposed ? elements[matrix][inner][outer] : elements[matrix][outer][inner];
        std::memcpy(out[lane].bytes + 4 * matrix + 2 * i, &value, 2);
      }
}
void straight_slots(const Slot* in, Slot* out) { matrix_slots(in, out, false); }
void transposed_slots(const Slot* in, Slot* out) { matrix_slots(in, out, true); }

void multiply(WarpOperation operation, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const MmaIn in{{c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  warp_operation(operation, &in, sizeof(in), c, sizeof(c));
}

}  // namespace

float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16U); }

uint16_t float_to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffU + (bits >> 16U & 1U)) >> 16U);  // to nearest, ties to even
}

float e4m3_to_float(uint8_t bits) {
  static const std::array<float, 256> kTable = e4m3_table();
  return kTable[bits];
}

uint8_t float_to_e4m3(float x) {
  const unsigned sign = std::signbit(x) ? 128U : 0U;
  if (std::isnan(x)) return 0x7f;
  const float magnitude = std::fabs(x);
  if (magnitude >= 448.0F) return static_cast<uint8_t>(sign | 0x7eU);
  const int exponent = magnitude < 0x1p-6F ? -6 : std::ilogb(magnitude);
  const auto steps = static_cast<unsigned>(std::nearbyint(std::ldexp(magnitude, 3 - exponent)));  // 0 ... 16
  // Counted in steps the encoding is continuous: 16 steps of one binade are the first number of the next.
  return static_cast<uint8_t>(sign | (static_cast<unsigned>(exponent + 6) * 8U + steps));
}

}  // namespace emulator

void load_matrix_x4(uint32_t (&out)[4], const void* row) {
  emulator::warp_operation(emulator::straight_slots, &row, sizeof(row), out, sizeof(out));
}
void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row) {
  emulator::warp_operation(emulator::transposed_slots, &row, sizeof(row), out, sizeof(out));
}
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::multiply(emulator::mma_bf16_slots, c, a, b0, b1);
}
void mma_fp8(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::multiply(emulator::mma_fp8_slots, c, a, b0, b1);
}

}  // namespace drydock::kernels::cuda
