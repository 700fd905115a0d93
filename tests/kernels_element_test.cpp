#include <doctest/doctest.h>

#include <limits>

#include "kernels/element.h"
#include "tests/effort.h"
#include "tests/kernels_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

bool same(float a, float b) {
  return std::isnan(a) ? std::isnan(b) : std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

// Bits of the representable number nearest to x, of two equally near the one with even bits; largest_bits: of the
// largest number.
template <typename T, int kLargest>
int nearest(double x) {
  int best = 0;
  double distance = std::numeric_limits<double>::infinity();
  for (int bits = 0; bits <= kLargest; ++bits) {
    const double d = std::abs(to_float(T{static_cast<decltype(T::bits)>(bits)}) - std::abs(x));
    if (d < distance || (d == distance && bits % 2 == 0)) best = bits, distance = d;
  }
  return best;
}

// Every eighth of a step from 0 to beyond the largest, both signs: ties included.
std::vector<float> around_fp8() {
  std::vector<float> out;
  for (int bits = 0; bits < 0x7E; ++bits) {
    const float low = to_float(Fp8{static_cast<uint8_t>(bits)}), high = to_float(Fp8{static_cast<uint8_t>(bits + 1)});
    for (int part = 0; part < 8; ++part) {
      const float x = low + (high - low) * static_cast<float>(part) / 8;
      for (const float y : {x, std::nextafter(x, 1000.0F), std::nextafter(x, -1.0F)})
        out.push_back(y), out.push_back(-y);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("fp8 e4m3 holds the numbers of the OCP specification") {
  CHECK(to_float(Fp8{0x00}) == 0);
  CHECK(to_float(Fp8{0x01}) == 0x1p-9F);  // smallest subnormal
  CHECK(to_float(Fp8{0x07}) == 0x7p-9F);  // largest subnormal
  CHECK(to_float(Fp8{0x08}) == 0x1p-6F);  // smallest normal
  CHECK(to_float(Fp8{0x38}) == 1);
  CHECK(to_float(Fp8{0x7E}) == 448);  // largest
  CHECK(to_float(Fp8{0xFE}) == -448);
  CHECK(std::isnan(to_float(Fp8{0x7F})));
  CHECK(std::isnan(to_float(Fp8{0xFF})));
  for (int bits = 0; bits < 256; ++bits) {
    const Fp8 x{static_cast<uint8_t>(bits)};
    CHECK(to_fp8(to_float(x)).bits == ((bits & 0x7F) == 0x7F ? (bits & 0x80) | 0x7F : bits));
  }
}

TEST_CASE("fp8 rounds to nearest, ties to even, and saturates") {
  for (const float x : around_fp8()) {
    CAPTURE(x);
    REQUIRE((to_fp8(x).bits & 0x7F) == nearest<Fp8, 0x7E>(x));
    REQUIRE((to_fp8(x).bits >= 0x80) == std::signbit(x));
  }
  CHECK(to_fp8(1e30F).bits == 0x7E);
  CHECK(to_fp8(-std::numeric_limits<float>::infinity()).bits == 0xFE);
  CHECK(to_fp8(463.9F).bits == 0x7E);
  CHECK(to_fp8(1e-30F).bits == 0);
  CHECK((to_fp8(std::numeric_limits<float>::quiet_NaN()).bits & 0x7F) == 0x7F);
}

TEST_CASE("bf16 keeps its numbers and rounds to nearest, ties to even") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = to_float(Bf16{static_cast<uint16_t>(bits)});
    if (std::isnan(x))
      REQUIRE(std::isnan(to_float(to_bf16(x))));
    else
      REQUIRE(to_bf16(x).bits == bits);
  }
  const auto rounded = [](uint32_t bits) { return to_bf16(std::bit_cast<float>(bits)).bits; };
  CHECK(rounded(0x3F808000u) == 0x3F80);  // half way: down to even
  CHECK(rounded(0x3F808001u) == 0x3F81);
  CHECK(rounded(0x3F818000u) == 0x3F82);  // half way: up to even
  CHECK(rounded(0x3F817FFFu) == 0x3F81);
  CHECK(rounded(0x7F7FFFFFu) == 0x7F80);                                    // beyond the largest: infinity
  CHECK(std::isnan(to_float(to_bf16(std::bit_cast<float>(0x7F800001u)))));  // not the infinity of its upper half
}

TEST_CASE("bulk conversions give what single ones give, on every instruction set") {
  std::vector<float> numbers = around_fp8();
  core::Random random(7);
  for (int i = 0; i < 20000 / kLighter; ++i)
    numbers.push_back(std::bit_cast<float>(static_cast<uint32_t>(random.next())));
  for (const float x : {0.0F, -0.0F, INFINITY, -INFINITY, 1e-40F, 448.0F, 464.0F, 0x1p-10F, 0x3p-10F})
    numbers.push_back(x);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    const auto count = static_cast<int64_t>(numbers.size());
    Numbers bf16(Dtype::bf16, count), fp8(Dtype::fp8, count);
    narrow(numbers.data(), count, 1, Dtype::bf16, bf16.data());
    narrow(numbers.data(), count, 1, Dtype::fp8, fp8.data());
    std::vector<float> from_bf16(numbers.size()), from_fp8(numbers.size());
    widen(bf16.data(), Dtype::bf16, count, 1, from_bf16.data());
    widen(fp8.data(), Dtype::fp8, count, 1, from_fp8.data());
    int64_t wrong = 0;
    for (size_t i = 0; i < numbers.size(); ++i)
      wrong += !same(from_bf16[i], to_float(to_bf16(numbers[i]))) + !same(from_fp8[i], to_float(to_fp8(numbers[i])));
    CHECK(wrong == 0);
    for (int64_t n = 0; n < 40; ++n) {  // ends of every length, nothing beyond
      std::vector<float> out(41, 5.0F);
      widen(fp8.data(), Dtype::fp8, n, 2, out.data());
      REQUIRE(out[n] == 5);
      for (int64_t i = 0; i < n; ++i) REQUIRE(same(out[i], 2 * from_fp8[i]));
      Numbers back(Dtype::bf16, 41);
      narrow(numbers.data(), n, 1, Dtype::bf16, back.data());
      REQUIRE(std::isnan(back[n]));
    }
  });
}
