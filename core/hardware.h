#pragma once
// The rates of one GPU and its links, and the least time an op can take on them.
#include <array>
#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "core/op.h"

namespace drydock::core {

struct Hardware {
  std::string name;          // of the system, "h200_sxm"
  std::string architecture;  // "ampere", "ada", "hopper", "blackwell"
  int sm_version = 0;        // 80, 89, 90, 100, 103, 120
  int sms = 0;               // streaming multiprocessors
  double memory_bytes_per_s = 0;
  // Dense tensor-core rate per format of the weights; 0: not in hardware [FLOP/s].
  std::array<double, kDtypes> flops_per_s{};
  double nvlink_bytes_per_s = 0;   // per GPU, one direction; 0: peers talk over PCIe
  int nvlink_domain = 1;           // GPUs that reach one another over NVLink
  double pcie_bytes_per_s = 0;     // one direction
  double network_bytes_per_s = 0;  // per GPU, one direction, out of the node or NVLink domain
  int gpus_per_node = 8;
};

// Rate at which a GEMM with such weights can run; a format without hardware runs as the next wider one that has it
// (weights unpacked on the way) [FLOP/s].
double peak_flops_per_s(const Hardware& hardware, Dtype weights);

// Bandwidth one GPU has towards the others of a group of `gpus` neighbours, one direction [bytes/s].
double link_bytes_per_s(const Hardware& hardware, int64_t gpus);

// max(bytes / bandwidth, FLOP / peak), or bytes over the link for communication [us]. No launch or latency term.
double roofline_us(const Op& op, const Hardware& hardware);

}  // namespace drydock::core
