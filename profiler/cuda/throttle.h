#pragma once
// Why a GPU's clocks are where they are, and which of its reasons spoil a timing. Host code that needs no GPU.
#include <cstdint>
#include <string>

namespace drydock::profiler::cuda {

// Bits of nvmlDeviceGetCurrentClocksEventReasons (NVML API reference, "NvmlClocksEventReasons").
enum ClockReason : uint64_t {
  kGpuIdle = 0x1,
  kApplicationClocks = 0x2,  // the owner's setting: the same in every run
  kPowerCap = 0x4,
  kHardwareSlowdown = 0x8,  // thermal or power brake
  kSyncBoost = 0x10,
  kSoftwareThermal = 0x20,
  kHardwareThermal = 0x40,
  kPowerBrake = 0x80,
  kDisplayClocks = 0x100,
};

enum class Clocks : uint8_t {
  free,          // as fast as settings allow; idle and settings count here
  power_capped,  // held at the power limit
  slowed,        // held down by temperature, the supply or a fault
};
Clocks clocks_of(uint64_t reasons);

// "power cap, thermal slowdown (software)"; empty for none.
std::string describe_reasons(uint64_t reasons);

// Decides which samples of one op count. Slowed ones never do. Power-capped ones don't while pauses may help; an op
// that is capped kPatience times in a row runs at the power limit wherever it runs, so from then on they count.
class ThrottleJudge {
 public:
  static constexpr int kPatience = 6;
  // `before` and `after`: reasons around the sample. True: drop it.
  bool drops(uint64_t before, uint64_t after);
  // To wait before the next sample so that the GPU cools [ms]; doubles from 10 to 160, 0 after a sample that counts.
  int pause_ms() const;
  bool power_bound() const { return capped_ >= kPatience; }

 private:
  int capped_ = 0, dropped_ = 0;  // in a row
};

}  // namespace drydock::profiler::cuda
