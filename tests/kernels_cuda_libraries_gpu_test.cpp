// What NVIDIA's libraries do for us, on a GPU only.
#include <doctest/doctest.h>

#include <cmath>

#include "core/error.h"
#include "kernels/cuda/collective.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/grouped_products.h"
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

// Experts of 0 to 700 rows, several tiles of every path, and two of equally many, which are one group of cuBLAS's.
TEST_CASE("every way of a grouped product gives the same, whether the host knows the groups or not") {
  const std::vector<int32_t> host_starts = {0, 0, 130, 260, 261, 961};
  const int64_t rows = 961, n = 384, k = 512, groups = 5;
  std::vector<Bf16> a = random_bf16(rows * k, 71), b = random_bf16(groups * n * k, 72), nothing(1);
  const std::vector<double> want =
      kernels::reference::grouped_gemm({matrix(a.data(), rows, k), matrix(b.data(), groups * n, k),
                                        matrix(nothing.data(), rows, n), host_starts.data(), groups});
  OnDevice<Bf16> device_a(a), device_b(b);
  OnDevice<int32_t> starts(host_starts);
  OnDevice<Bf16> out(static_cast<size_t>(rows * n));
  kernels::cuda::GroupedProducts products;
  kernels::GroupedGemm op{matrix(device_a.data(), rows, k), matrix(device_b.data(), groups * n, k),
                          matrix(out.data(), rows, n), starts.data(), groups};
  const auto ways = products.ways(op, true);
  CHECK(ways.front() == "grouped_gemm");
  const std::vector<Bf16> poison(static_cast<size_t>(rows * n), Bf16{0x7fc0});
  for (const std::string& way : ways)
    for (const bool known : {false, true}) {
      CAPTURE(way);
      CAPTURE(known);
      OnDevice<Bf16> fresh(poison);
      op.out = matrix(fresh.data(), rows, n);
      op.host_starts = known ? host_starts.data() : nullptr;
      products.run(op, nullptr, way);
      const std::vector<Bf16> got = fresh.read();
      for (size_t i = 0; i < want.size(); ++i)
        REQUIRE(std::abs(kernels::to_float(got[i]) - want[i]) <= std::abs(want[i]) / 256 + 512 * 512 * 0x1p-25 + 1e-6);
    }
  op.out = matrix(out.data(), rows, n);
  const auto timed = products.measure(op, nullptr, 3);
  REQUIRE(timed.size() == products.ways(op).size());
  CHECK(timed.front().time_us > 0);
  CHECK(timed.front().time_us <= timed.back().time_us);
  // A way of another version is ours.
  products.run(op, nullptr, "cublas 1.0.0");
  CHECK(std::abs(kernels::to_float(out.read().back()) - want.back()) <= std::abs(want.back()) / 256 + 0.01);
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
