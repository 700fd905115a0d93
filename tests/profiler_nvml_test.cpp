#include <doctest/doctest.h>

#include "profiler/cuda/energy.h"
#include "profiler/cuda/nvml.h"
#include "profiler/cuda/throttle.h"

namespace drydock::profiler::cuda {
namespace {

TEST_CASE("clock reasons: idle and settings are no throttling, heat, brakes and the power limit are") {
  for (const uint64_t reasons : {uint64_t{0}, uint64_t{kGpuIdle}, uint64_t{kApplicationClocks}, uint64_t{kSyncBoost},
                                 uint64_t{kDisplayClocks}, kGpuIdle | kApplicationClocks})
    CHECK(clocks_of(reasons) == Clocks::free);
  CHECK(clocks_of(kPowerCap) == Clocks::power_capped);
  CHECK(clocks_of(kPowerCap | kGpuIdle) == Clocks::power_capped);
  for (const uint64_t reasons : {kHardwareSlowdown, kSoftwareThermal, kHardwareThermal, kPowerBrake}) {
    CHECK(clocks_of(reasons) == Clocks::slowed);
    CHECK(clocks_of(reasons | kPowerCap) == Clocks::slowed);
  }
  CHECK(clocks_of(uint64_t{1} << 40) == Clocks::free);  // a bit of a later driver
}

TEST_CASE("clock reasons as words") {
  CHECK(describe_reasons(0).empty());
  CHECK(describe_reasons(kPowerCap | kHardwareThermal) == "power cap, thermal slowdown (hardware)");
}

TEST_CASE("a slowed sample never counts, whichever side of it the reason shows") {
  ThrottleJudge judge;
  for (int i = 0; i < 50; ++i) {
    CHECK(judge.drops(kSoftwareThermal, 0));
    CHECK(judge.drops(0, kHardwareSlowdown));
  }
  CHECK_FALSE(judge.power_bound());
  CHECK_FALSE(judge.drops(kGpuIdle, 0));
}

TEST_CASE("a power-capped sample counts once pauses have not helped") {
  ThrottleJudge judge;
  for (int i = 1; i < ThrottleJudge::kPatience; ++i) CHECK(judge.drops(0, kPowerCap));
  CHECK_FALSE(judge.drops(kPowerCap, kPowerCap));
  CHECK(judge.power_bound());
  CHECK_FALSE(judge.drops(0, kPowerCap));
  CHECK(judge.drops(0, kPowerCap | kHardwareThermal));  // heat is another matter
  CHECK_FALSE(judge.drops(0, 0));
  CHECK(judge.drops(0, kPowerCap));  // it was free meanwhile: patience starts over
}

TEST_CASE("pauses double up to 160 ms and end with a sample that counts") {
  ThrottleJudge judge;
  CHECK(judge.pause_ms() == 0);
  for (const int want : {10, 20, 40, 80, 160, 160}) {
    judge.drops(0, kHardwareThermal);
    CHECK(judge.pause_ms() == want);
  }
  judge.drops(0, 0);
  CHECK(judge.pause_ms() == 0);
}

TEST_CASE("without the library nothing is known and nothing throws") {
  const Nvml nvml("0000:1b:00.0", "libdrydock-there-is-none.so.1");
  CHECK_FALSE(nvml.is_open());
  CHECK_FALSE(nvml.driver());
  CHECK_FALSE(nvml.max_clock_mhz());
  CHECK_FALSE(nvml.power_w());
  CHECK_FALSE(nvml.compute_processes());
  CHECK_FALSE(nvml.clock_reasons());
  CHECK_FALSE(nvml.joules());
  CHECK_FALSE(nvml.pcie_bytes_per_s());
  CHECK(nvml.nvlinks() == 0);
}

TEST_CASE("what the library says, in our units; what it lacks or refuses is not known") {
  const Nvml nvml("0000:1b:00.0", DRYDOCK_FAKE_NVML);
  REQUIRE(nvml.is_open());
  CHECK(nvml.driver() == "580.65.06");
  CHECK(nvml.max_clock_mhz() == 1980);
  CHECK(nvml.max_memory_clock_mhz() == 3201);
  CHECK(nvml.power_w() == 698.5);
  CHECK(nvml.celsius() == 61);
  CHECK(nvml.ecc() == true);
  CHECK_FALSE(nvml.mig());                        // refused
  CHECK_FALSE(nvml.clock_mhz());                  // no such function
  CHECK_FALSE(nvml.power_limit_w());              // no such function
  CHECK(nvml.clock_reasons() == uint64_t{0x44});  // by the older name
  CHECK(nvml.joules() == 5'000'000.123);
  CHECK(nvml.nvlinks() == 12);
  CHECK(nvml.nvlink_version() == 4);
  // 32 GT/s, 16 lanes, 128 of 130 bits: 63.0 GB/s.
  CHECK(*nvml.pcie_bytes_per_s() == doctest::Approx(63.015e9).epsilon(1e-4));
  const auto processes = nvml.compute_processes();  // more than the first call has room for
  REQUIRE(processes);
  CHECK(processes->size() == 100);
  CHECK(processes->back() == 1099);
}

TEST_CASE("a GPU that the library does not have is not open") {
  CHECK_FALSE(Nvml("0000:ff:00.0", DRYDOCK_FAKE_NVML).is_open());
}

TEST_CASE("PCIe rates are those of the specifications") {
  CHECK(pcie_link_bytes_per_s(1, 1) == doctest::Approx(250e6));
  CHECK(pcie_link_bytes_per_s(3, 16) == doctest::Approx(15.754e9).epsilon(1e-4));
  CHECK(pcie_link_bytes_per_s(4, 16) == doctest::Approx(31.508e9).epsilon(1e-4));
  CHECK(pcie_link_bytes_per_s(6, 16) == doctest::Approx(121e9));
  CHECK(pcie_link_bytes_per_s(9, 16) == 0);
}

TEST_CASE("energy of a launch needs a window of a second") {
  EnergyWindow window;
  CHECK_FALSE(window.of_one(100, 10));
  window.begin(100, 10);
  CHECK_FALSE(window.of_one(800, 11.5));  // nothing ran
  window.add(600);
  window.add(400);
  CHECK_FALSE(window.of_one(800, 10.9));
  CHECK(*window.of_one(800, 11) == doctest::Approx(0.7));
  CHECK_FALSE(window.of_one(100, 12));  // the counter stood still
  window.stop();
  CHECK_FALSE(window.of_one(800, 12));
}

}  // namespace
}  // namespace drydock::profiler::cuda
