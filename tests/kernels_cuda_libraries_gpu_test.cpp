// What NVIDIA's libraries do for us, on a GPU only.
#include <doctest/doctest.h>

#include <cmath>

#include "core/error.h"
#include "kernels/cuda/collective.h"
#include "kernels/cuda/gemm.h"
#include "kernels/reference.h"
#include "tests/simt/on_device.h"
#include "tests/simt/random_numbers.h"

namespace drydock::tests {
namespace {

using kernels::Bf16;
using kernels::Fp8;
using kernels::Gemm;
using kernels::Scaling;

std::vector<float> scales_for(int64_t count, uint32_t seed) {
  std::vector<float> out = random_floats(count, seed);
  for (float& x : out) x = (1 + x / 2) / 448;
  return out;
}

// False when cuBLASLt has nothing for this GPU.
template <typename T>
bool test_product(Scaling scaling, std::vector<T> a, std::vector<T> b) {
  const int64_t m = 64, n = 256, k = 640;
  std::vector<float> a_scales = scales_for(scales_of(scaling, m, k), 61);
  const int64_t b_count = scaling == Scaling::block ? 2 * 5 : scaling == Scaling::row ? n : 1;
  std::vector<float> b_scales = scales_for(b_count, 62);
  std::vector<Bf16> nothing(1);
  const std::vector<double> want =
      kernels::reference::gemm({scaled_matrix(a.data(), m, k, a_scales.data(), scaling),
                                scaled_matrix(b.data(), n, k, b_scales.data(), scaling), matrix(nothing.data(), m, n)});
  OnDevice<T> device_a(a), device_b(b);
  OnDevice<float> device_a_scales(a_scales), device_b_scales(b_scales);
  OnDevice<Bf16> out(static_cast<size_t>(m * n));
  const Gemm op{scaled_matrix(device_a.data(), m, k, device_a_scales.data(), scaling),
                scaled_matrix(device_b.data(), n, k, device_b_scales.data(), scaling), matrix(out.data(), m, n)};
  kernels::cuda::CublasGemm gemm;
  std::vector<kernels::cuda::TimedAlgorithm> timed;
  try {
    timed = gemm.measure(op, nullptr, 4, 3);
  } catch (const core::Error&) {
    return false;
  }
  REQUIRE(timed.front().time_us > 0);
  for (const std::string& algorithm : {timed.front().algorithm, timed.back().algorithm, std::string("of no use")}) {
    gemm.run(op, nullptr, algorithm);
    const std::vector<Bf16> got = out.read();
    // bf16 rounds to 2^-9; fp8 products are summed with 14 bits at worst: 2^-13 of k / 2.
    for (size_t i = 0; i < want.size(); ++i)
      REQUIRE(std::abs(kernels::to_float(got[i]) - want[i]) <= std::abs(want[i]) / 256 + 640 * 0x1p-14);
  }
  return true;
}

TEST_CASE("cuBLASLt multiplies bf16") {
  CHECK(test_product(Scaling::none, random_bf16(64 * 640, 63), random_bf16(256 * 640, 64)));
}

TEST_CASE("cuBLASLt multiplies fp8 where the GPU can") {
  for (const Scaling scaling : {Scaling::tensor, Scaling::row, Scaling::block})
    if (!test_product(scaling, random_fp8(64 * 640, 65), random_fp8(256 * 640, 66)))
      MESSAGE("no algorithm for scaling " << static_cast<int>(scaling));
}

TEST_CASE("NCCL with one rank copies") {
  kernels::cuda::Communicator one(kernels::cuda::Communicator::new_id(), 0, 1);
  const std::vector<float> numbers = random_floats(1024, 67);
  OnDevice<float> in(numbers), out(numbers.size());
  one.all_reduce(in.data(), out.data(), 1024, core::Dtype::fp32, nullptr);
  CHECK(out.read() == numbers);
  one.all_to_all(in.data(), out.data(), 1024, core::Dtype::fp32, nullptr);
  CHECK(out.read() == numbers);
  CHECK(one.ranks() == 1);
}

}  // namespace
}  // namespace drydock::tests
