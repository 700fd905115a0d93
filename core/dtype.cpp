#include "core/dtype.h"

#include <array>

namespace drydock::core {
namespace {

struct Format {
  std::string_view name;
  double weight_bytes;
  double activation_bytes;
};

// Scale overheads: DeepSeek-V3 report (128 x 128 fp32), OCP microscaling 1.0 (e8m0 per 32), NVFP4 (e4m3 per 16).
constexpr std::array<Format, kDtypes> kFormats = {{
    {"fp32", 4.0, 4.0},
    {"bf16", 2.0, 2.0},
    {"fp8", 1.0, 1.0},
    {"fp8_block", 1.0 + 4.0 / (128 * 128), 1.0 + 4.0 / 128},
    {"int8", 1.0, 1.0},
    {"int4", 0.5 + 2.0 / 32, 2.0},
    {"nvfp4", 0.5 + 1.0 / 16, 0.5 + 1.0 / 16},
    {"mxfp4", 0.5 + 1.0 / 32, 1.0},
}};

}  // namespace

double bytes_per_element(Dtype dtype) { return kFormats[static_cast<size_t>(dtype)].weight_bytes; }

double activation_bytes_per_element(Dtype weights) { return kFormats[static_cast<size_t>(weights)].activation_bytes; }

std::string_view name(Dtype dtype) { return kFormats[static_cast<size_t>(dtype)].name; }

std::optional<Dtype> parse_dtype(std::string_view text) {
  if (text == "fp16") return Dtype::bf16;
  if (text == "fp4") return Dtype::nvfp4;
  for (size_t i = 0; i < kFormats.size(); ++i)
    if (kFormats[i].name == text) return static_cast<Dtype>(i);
  return std::nullopt;
}

}  // namespace drydock::core
