#include "profiler/cuda/throttle.h"

#include <algorithm>
#include <utility>

namespace drydock::profiler::cuda {

Clocks clocks_of(uint64_t reasons) {
  if ((reasons & (kHardwareSlowdown | kSoftwareThermal | kHardwareThermal | kPowerBrake)) != 0) return Clocks::slowed;
  return (reasons & kPowerCap) != 0 ? Clocks::power_capped : Clocks::free;
}

std::string describe_reasons(uint64_t reasons) {
  constexpr std::pair<uint64_t, const char*> kNames[] = {
      {kGpuIdle, "idle"},
      {kApplicationClocks, "application clocks"},
      {kPowerCap, "power cap"},
      {kHardwareSlowdown, "hardware slowdown"},
      {kSyncBoost, "sync boost"},
      {kSoftwareThermal, "thermal slowdown (software)"},
      {kHardwareThermal, "thermal slowdown (hardware)"},
      {kPowerBrake, "power brake"},
      {kDisplayClocks, "display clocks"},
  };
  std::string out;
  for (const auto& [bit, name] : kNames)
    if ((reasons & bit) != 0) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

bool ThrottleJudge::drops(uint64_t before, uint64_t after) {
  const Clocks worst = std::max(clocks_of(before), clocks_of(after));
  capped_ = worst == Clocks::power_capped ? std::min(capped_ + 1, kPatience) : worst == Clocks::free ? 0 : capped_;
  const bool drop = worst == Clocks::slowed || (worst == Clocks::power_capped && !power_bound());
  dropped_ = drop ? dropped_ + 1 : 0;
  return drop;
}

int ThrottleJudge::pause_ms() const {
  constexpr int kFirst = 10, kDoublings = 4;
  return dropped_ == 0 ? 0 : kFirst << std::min(dropped_ - 1, kDoublings);
}

}  // namespace drydock::profiler::cuda
