#pragma once
// Number formats of weights, activations and KV caches.
#include <cstdint>
#include <optional>
#include <string_view>

namespace drydock::core {

enum class Dtype : uint8_t {
  fp32,
  bf16,       // also stands for fp16: same width, same tensor-core rate
  fp8,        // e4m3, one scale per tensor
  fp8_block,  // e4m3, one fp32 scale per 128 x 128 weight block
  int8,
  int4,   // weight only, group of 32, bf16 scale; activations bf16
  nvfp4,  // e2m1, one fp8 scale per 16
  mxfp4,  // e2m1, one e8m0 scale per 32
};
inline constexpr int kDtypes = 8;

// Storage of one element, its share of the scales included [bytes].
double bytes_per_element(Dtype dtype);

// What the activations of a GEMM with weights of this type are read as [bytes per element].
double activation_bytes_per_element(Dtype weights);

std::string_view name(Dtype dtype);

// "bf16", "fp16", "fp8", "fp8_block", "int8", "int4", "nvfp4" (also "fp4"), "mxfp4", "fp32"; nullopt for others.
std::optional<Dtype> parse_dtype(std::string_view text);

}  // namespace drydock::core
