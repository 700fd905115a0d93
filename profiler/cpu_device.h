#pragma once
// This host as a device: its kernels are those of kernels/cpu.h.
#include "kernels/threads.h"
#include "profiler/device.h"

namespace drydock::profiler {

inline constexpr const char* kHostSystem = "cpu_host";  // the name its rows are kept under

class CpuDevice : public Device {
 public:
  // `threads`: 0 for all processors.
  explicit CpuDevice(int threads = 0);
  // From /proc/cpuinfo, uname and the load average; warns when others use the processors.
  Identity identity() override;
  // Bandwidth (the better of copying and reading 256 MiB) and the GEMM rate of each format, measured: a second or two.
  // One GPU to a node; links are memory bandwidth, the network 10 Gbit/s.
  models::System system() override;
  std::optional<std::string> why_not(const core::Op& op) override;
  // A sample is the mean over 1 ms of back-to-back launches; throttled: the hypervisor or another process took a
  // processor meanwhile. Where that never ends, such samples count after all.
  std::unique_ptr<Experiment> prepare(const core::Op& op) override;

 private:
  kernels::cpu::Threads threads_;
};

}  // namespace drydock::profiler
