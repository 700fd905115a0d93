#pragma once
// NVIDIA's management library, opened at run time: reads what a GPU is and does, and never changes a setting.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace drydock::profiler::cuda {

// One GPU. Whatever the library, the driver or the GPU does not tell is nullopt; nothing here throws.
class Nvml {
 public:
  static constexpr const char* kLibrary = "libnvidia-ml.so.1";
  // `pci_bus_id` as cudaDeviceGetPCIBusId gives it, "0000:1b:00.0".
  explicit Nvml(const std::string& pci_bus_id, const char* library = kLibrary);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  bool is_open() const { return device_ != nullptr; }
  std::optional<std::string> driver() const;  // "580.65.06"
  std::optional<int> max_clock_mhz() const, max_memory_clock_mhz() const;
  std::optional<int> clock_mhz() const;  // of the multiprocessors, now
  std::optional<double> power_w() const, power_limit_w() const, celsius() const;
  std::optional<bool> ecc() const, mig() const;
  std::optional<std::vector<unsigned>> compute_processes() const;  // their ids, as the host counts them
  std::optional<uint64_t> clock_reasons() const;                   // bits of throttle.h
  // Used since the driver was loaded; moves on about every 100 ms.
  std::optional<double> joules() const;
  std::optional<double> pcie_bytes_per_s() const;  // one direction, at the best link both ends can
  int nvlinks() const;                             // links that are up
  std::optional<int> nvlink_version() const;       // of the first one that is up

 private:
  template <typename... A>
  bool ask(const char* symbol, A... arguments) const;
  std::optional<unsigned> number(const char* symbol) const;
  std::optional<int> clock(const char* symbol, int domain) const;

  void* library_ = nullptr;
  void* device_ = nullptr;
};

// Raw rate of a PCIe link, one direction, line coding counted [bytes/s]; 0 for a generation it does not know.
double pcie_link_bytes_per_s(unsigned generation, unsigned lanes);

}  // namespace drydock::profiler::cuda
