#include "profiler/cuda/nvml.h"

#include <dlfcn.h>

#include <array>

namespace drydock::profiler::cuda {
namespace {

// Names, values and layouts are those of the NVML API reference; its header is no part of the toolkit's wheels.
using Device = void*;
constexpr int kGraphicsClock = 1, kMemoryClock = 2;  // NVML_CLOCK_SM, NVML_CLOCK_MEM
constexpr int kGpuSensor = 0;
constexpr int kInsufficientSize = 7;

struct ProcessInfo {  // nvmlProcessInfo_t of the functions that end in _v3
  unsigned pid;
  unsigned long long used_bytes;
  unsigned gpu_instance, compute_instance;
};

}  // namespace

template <typename... A>
bool Nvml::ask(const char* symbol, A... arguments) const {
  if (library_ == nullptr) return false;
  const auto function = reinterpret_cast<int (*)(A...)>(::dlsym(library_, symbol));
  return function != nullptr && function(arguments...) == 0;
}

Nvml::Nvml(const std::string& pci_bus_id, const char* library) {
  library_ = ::dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!ask("nvmlInit_v2") ||
      !ask<const char*, Device*>("nvmlDeviceGetHandleByPciBusId_v2", pci_bus_id.c_str(), &device_))
    device_ = nullptr;
}

// The library stays open: a driver's exit handlers may lie in it.
Nvml::~Nvml() { ask("nvmlShutdown"); }

std::optional<std::string> Nvml::driver() const {
  std::array<char, 96> text{};
  if (!is_open() || !ask<char*, unsigned>("nvmlSystemGetDriverVersion", text.data(), text.size())) return std::nullopt;
  return std::string(text.data());
}

std::optional<unsigned> Nvml::number(const char* symbol) const {
  unsigned value = 0;
  if (!is_open() || !ask<Device, unsigned*>(symbol, device_, &value)) return std::nullopt;
  return value;
}

std::optional<int> Nvml::clock(const char* symbol, int domain) const {
  unsigned mhz = 0;
  if (!is_open() || !ask<Device, int, unsigned*>(symbol, device_, domain, &mhz)) return std::nullopt;
  return static_cast<int>(mhz);
}

std::optional<int> Nvml::max_clock_mhz() const { return clock("nvmlDeviceGetMaxClockInfo", kGraphicsClock); }
std::optional<int> Nvml::max_memory_clock_mhz() const { return clock("nvmlDeviceGetMaxClockInfo", kMemoryClock); }
std::optional<int> Nvml::clock_mhz() const { return clock("nvmlDeviceGetClockInfo", kGraphicsClock); }

std::optional<double> Nvml::power_w() const {
  const auto milliwatts = number("nvmlDeviceGetPowerUsage");
  return milliwatts ? std::optional(*milliwatts / 1e3) : std::nullopt;
}

std::optional<double> Nvml::power_limit_w() const {
  const auto milliwatts = number("nvmlDeviceGetEnforcedPowerLimit");
  return milliwatts ? std::optional(*milliwatts / 1e3) : std::nullopt;
}

std::optional<double> Nvml::celsius() const {
  unsigned degrees = 0;
  if (!is_open() || !ask<Device, int, unsigned*>("nvmlDeviceGetTemperature", device_, kGpuSensor, &degrees))
    return std::nullopt;
  return degrees;
}

std::optional<bool> Nvml::ecc() const {
  int current = 0, pending = 0;
  if (!is_open() || !ask<Device, int*, int*>("nvmlDeviceGetEccMode", device_, &current, &pending)) return std::nullopt;
  return current != 0;
}

std::optional<bool> Nvml::mig() const {
  unsigned current = 0, pending = 0;
  if (!is_open() || !ask<Device, unsigned*, unsigned*>("nvmlDeviceGetMigMode", device_, &current, &pending))
    return std::nullopt;
  return current != 0;
}

std::optional<std::vector<unsigned>> Nvml::compute_processes() const {
  if (!is_open()) return std::nullopt;
  const auto function = reinterpret_cast<int (*)(Device, unsigned*, ProcessInfo*)>(
      ::dlsym(library_, "nvmlDeviceGetComputeRunningProcesses_v3"));
  if (function == nullptr) return std::nullopt;
  constexpr unsigned kMany = 64;
  std::vector<ProcessInfo> found(kMany);
  unsigned count = kMany;
  int status = function(device_, &count, found.data());
  if (status == kInsufficientSize) {  // `count` is how many there are; some more may start meanwhile
    found.resize(count + kMany);
    count = static_cast<unsigned>(found.size());
    status = function(device_, &count, found.data());
  }
  if (status != 0 || count > found.size()) return std::nullopt;
  std::vector<unsigned> out;
  for (unsigned i = 0; i < count; ++i) out.push_back(found[i].pid);
  return out;
}

std::optional<uint64_t> Nvml::clock_reasons() const {
  unsigned long long reasons = 0;
  if (!is_open()) return std::nullopt;
  // The first name is that of driver 535 and later.
  for (const char* symbol : {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"})
    if (ask<Device, unsigned long long*>(symbol, device_, &reasons)) return reasons;
  return std::nullopt;
}

std::optional<double> Nvml::joules() const {
  unsigned long long millijoules = 0;
  if (!is_open() || !ask<Device, unsigned long long*>("nvmlDeviceGetTotalEnergyConsumption", device_, &millijoules))
    return std::nullopt;
  return static_cast<double>(millijoules) / 1e3;
}

std::optional<double> Nvml::pcie_bytes_per_s() const {
  const auto generation = number("nvmlDeviceGetMaxPcieLinkGeneration"), lanes = number("nvmlDeviceGetMaxPcieLinkWidth");
  if (!generation || !lanes) return std::nullopt;
  const double rate = pcie_link_bytes_per_s(*generation, *lanes);
  return rate > 0 ? std::optional(rate) : std::nullopt;
}

int Nvml::nvlinks() const {
  constexpr unsigned kMostLinks = 18;
  int up = 0;
  for (unsigned link = 0; is_open() && link < kMostLinks; ++link) {
    int active = 0;
    if (ask<Device, unsigned, int*>("nvmlDeviceGetNvLinkState", device_, link, &active) && active != 0) ++up;
  }
  return up;
}

std::optional<int> Nvml::nvlink_version() const {
  constexpr unsigned kMostLinks = 18;
  for (unsigned link = 0; is_open() && link < kMostLinks; ++link) {
    int active = 0;
    unsigned version = 0;
    if (ask<Device, unsigned, int*>("nvmlDeviceGetNvLinkState", device_, link, &active) && active != 0 &&
        ask<Device, unsigned, unsigned*>("nvmlDeviceGetNvLinkVersion", device_, link, &version))
      return static_cast<int>(version);
  }
  return std::nullopt;
}

double pcie_link_bytes_per_s(unsigned generation, unsigned lanes) {
  // GT/s of a lane and the coding of the PCI Express base specifications 1.0 to 6.0.
  switch (generation) {
    case 1:
      return lanes * 2.5e9 * 0.8 / 8;
    case 2:
      return lanes * 5e9 * 0.8 / 8;
    case 3:
    case 4:
    case 5:
      return lanes * (8e9 * (1U << (generation - 3))) * (128.0 / 130) / 8;
    case 6:
      return lanes * 64e9 * (242.0 / 256) / 8;
    default:
      return 0;
  }
}

}  // namespace drydock::profiler::cuda
