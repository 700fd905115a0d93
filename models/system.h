#pragma once
// A GPU and the machine around it: datasheet facts.
#include <filesystem>
#include <optional>
#include <string>

#include "core/hardware.h"

namespace drydock::models {

struct System {
  core::Hardware hardware;  // `hardware.name` is the system's name
  std::string gpu;          // "NVIDIA H200 SXM"
  double memory_bytes = 0;  // as the driver reports it
  int gpus_per_rack = 8;
  double power_w = 0;  // of one GPU
  std::optional<double> price_per_gpu_hour;
  std::string source;  // where the figures are from

  const std::string& name() const { return hardware.name; }
};

// Throws core::Error naming file, field and what would be right.
System read_system(const std::filesystem::path& json);

}  // namespace drydock::models
