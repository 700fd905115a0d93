#pragma once
// What can be measured: a GPU behind the CUDA plug-in, this host, or simulated silicon.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/op.h"
#include "models/system.h"

namespace drydock::profiler {

// Who answers, as far as it can be told without changing a setting.
struct Identity {
  std::string gpu;      // "NVIDIA H200", or the CPU's model name
  std::string driver;   // or the kernel's release
  std::string clocks;   // the highest, and what else makes times comparable; stable between runs: "1980 MHz"
  std::string version;  // of the kernels measured
  int64_t units = 0;    // streaming multiprocessors, or cores
  double memory_bytes = 0;
  bool mig = false, ecc = false;
  int other_processes = 0;            // that use the device now
  double power_w = 0, celsius = 0;    // now; 0: not known
  std::vector<std::string> warnings;  // one line each, what speaks against the figures
};

// One timing.
struct Reading {
  double us = 0;           // of one launch: the mean over enough back-to-back ones
  bool throttled = false;  // clocks were held down while it was taken
};

// One op, its inputs in place and warm. Used from the thread that made it.
class Experiment {
 public:
  virtual ~Experiment() = default;
  // Throws core::Error when the device fails.
  virtual Reading sample() = 0;
  // What was timed, one line; kernels of one op joined by '+': "permute+gather+...". Empty: not told.
  virtual std::string kernel() { return ""; }
  // Energy of one launch over all samples so far [J], where the device can tell.
  virtual std::optional<double> joules() { return std::nullopt; }
};

// A kernel of an op, and its share of the op's time.
struct KernelPart {
  std::string name;
  double share = 0;
  bool operator==(const KernelPart&) const = default;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual Identity identity() = 0;
  // The machine as predictions need it: datasheet facts where its name is known, else measured now (takes seconds).
  virtual models::System system() = 0;
  // Why `op` can't be measured here, one line: no such kernel, not enough memory, one GPU only. nullopt: it can.
  virtual std::optional<std::string> why_not(const core::Op& op) = 0;
  // Makes random inputs, rotated so that caches do not help, and warms up. `why_not(op)` must be empty.
  // Throws core::Error when the device fails.
  virtual std::unique_ptr<Experiment> prepare(const core::Op& op) = 0;
  // How the time of `op` splits between its kernels, the longest first; a tracer slows what is timed beside it, so in a
  // process of its own. Empty: can't tell. `why_not(op)` must be empty. Throws core::Error when the device fails.
  virtual std::vector<KernelPart> parts(const core::Op&) { return {}; }
};

// The CUDA plug-in's entry point. Returns a device that the caller deletes, or null with one line in `error`, which is
// `error_bytes` long.
inline constexpr const char* kPlugin = "libdrydock_cuda.so";
inline constexpr const char* kEntryPoint = "drydock_open_device";
using OpenDevice = Device* (*)(int index, char* error, size_t error_bytes);

// Opens device `index` through the plug-in beside the running executable. Throws core::Error when the plug-in, the
// driver or the device is not there. Starts the driver: only in a process that does not fork afterwards.
std::unique_ptr<Device> open_cuda_device(int index);

}  // namespace drydock::profiler
