#include <cmath>
#include <string>

#include "core/error.h"
#include "kernels/cuda/attention_check.h"

namespace drydock::kernels::cuda {
namespace {

[[noreturn]] void refuse(const char* op, const std::string& what, const std::string& right) {
  throw core::Error(std::string(op) + ": " + what + "; " + right + " is right");
}

}  // namespace

void check_kv(const PagedKv& kv, int64_t heads, const char* op) {
  if (kv.dtype != core::Dtype::bf16 && kv.dtype != core::Dtype::fp8)
    refuse(op, "the KV cache is " + std::string(core::name(kv.dtype)), "bf16 or fp8");
  if (kv.head_dim != 64 && kv.head_dim != 128 && kv.head_dim != 256)
    refuse(op, "head_dim is " + std::to_string(kv.head_dim), "64, 128 or 256");
  if (kv.kv_heads <= 0 || heads <= 0 || heads % kv.kv_heads != 0)
    refuse(op, std::to_string(heads) + " heads on " + std::to_string(kv.kv_heads) + " KV heads", "a multiple of them");
  if (kv.block_tokens <= 0 || (kv.block_tokens & (kv.block_tokens - 1)) != 0)
    refuse(op, "block_tokens is " + std::to_string(kv.block_tokens), "a power of two");
}

void check_numbers(core::Dtype dtype, float scale, const char* op) {
  if (dtype != core::Dtype::bf16) refuse(op, "q and out are " + std::string(core::name(dtype)), "bf16");
  if (!(scale > 0) || !std::isfinite(scale)) refuse(op, "scale is " + std::to_string(scale), "a positive number");
}

void check_grid(int64_t extent, const char* name, const char* op) {
  if (extent > 65535) refuse(op, std::string(name) + " is " + std::to_string(extent), "at most 65535");
}

}  // namespace drydock::kernels::cuda
