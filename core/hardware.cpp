#include "core/hardware.h"

#include <algorithm>

namespace drydock::core {
namespace {

double first_positive(const Hardware& hardware, std::initializer_list<Dtype> candidates) {
  for (const Dtype dtype : candidates)
    if (const double rate = hardware.flops_per_s[static_cast<size_t>(dtype)]; rate > 0) return rate;
  return 0;
}

}  // namespace

double peak_flops_per_s(const Hardware& hardware, Dtype weights) {
  switch (weights) {
    case Dtype::nvfp4:
      return first_positive(hardware, {Dtype::nvfp4, Dtype::fp8, Dtype::bf16});
    // Engines pair MXFP4 weights with fp8 activations where the tensor cores take both, else unpack to bf16.
    case Dtype::mxfp4:
      return hardware.flops_per_s[static_cast<size_t>(Dtype::mxfp4)] > 0
                 ? first_positive(hardware, {Dtype::fp8, Dtype::bf16})
                 : first_positive(hardware, {Dtype::bf16});
    case Dtype::fp8:
    case Dtype::fp8_block:
      return first_positive(hardware, {Dtype::fp8, Dtype::bf16});
    case Dtype::int8:
      return first_positive(hardware, {Dtype::int8, Dtype::bf16});
    case Dtype::int4:
      return first_positive(hardware, {Dtype::bf16});
    default:
      return first_positive(hardware, {weights, Dtype::bf16});
  }
}

double link_bytes_per_s(const Hardware& hardware, int64_t gpus) {
  if (hardware.nvlink_bytes_per_s > 0 && gpus <= hardware.nvlink_domain) return hardware.nvlink_bytes_per_s;
  if (gpus <= hardware.gpus_per_node) return hardware.pcie_bytes_per_s;
  return hardware.network_bytes_per_s;
}

double roofline_us(const Op& op, const Hardware& hardware) {
  if (is_communication(op.kind)) {
    const int64_t group = op.kind == OpKind::moe_dispatch || op.kind == OpKind::moe_combine ? op.shape[4] : op.shape[1];
    return group <= 1 ? 0 : bytes(op) / link_bytes_per_s(hardware, group) * 1e6;
  }
  const bool attends = op.kind >= OpKind::prefill_attention && op.kind <= OpKind::mamba2;
  const double peak = peak_flops_per_s(hardware, attends && op.dtype == Dtype::fp32 ? Dtype::bf16 : op.dtype);
  return std::max(bytes(op) / hardware.memory_bytes_per_s, peak > 0 ? flops(op) / peak : 0) * 1e6;
}

}  // namespace drydock::core
