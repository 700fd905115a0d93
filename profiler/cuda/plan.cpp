#include "profiler/cuda/plan.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using core::Op;
using core::OpKind;

constexpr double kBf16 = 2;
// cuBLASLt's 64 MiB, partial results of split attention, counters, graphs.
constexpr double kWorkspaces = 256e6;
constexpr int64_t kMostNormColumns = 28672;  // kernels/cuda/small_ops.h
constexpr int64_t kMostGridRows = 65535;     // of a grid's y and z

bool is_fp8(Dtype dtype) { return dtype == Dtype::fp8 || dtype == Dtype::fp8_block; }
int64_t width(Dtype dtype) { return is_fp8(dtype) ? 1 : 2; }
bool is_product(OpKind kind) { return kind == OpKind::gemm || kind == OpKind::batched_gemm || kind == OpKind::moe; }

std::optional<std::string> product_reason(const Op& op, const Gpu& gpu) {
  if (op.dtype != Dtype::bf16 && !is_fp8(op.dtype))
    return "no CUDA kernel for weights in " + std::string(core::name(op.dtype)) + "; bf16, fp8 and fp8_block have one";
  if (is_fp8(op.dtype) && gpu.sm_version < 89)
    return "fp8 products need sm_89 or later, this is sm_" + std::to_string(gpu.sm_version);
  // Both grouped products of moe have rows of 16 bytes.
  const int64_t step = 16 / width(op.dtype);
  const bool moe = op.kind == OpKind::moe;
  for (const int64_t extent : {op.shape[moe ? 1 : 2], op.shape[2]})
    if (extent % step != 0 && (op.kind != OpKind::gemm || is_fp8(op.dtype)))
      return "an extent of " + std::to_string(extent) + " in " + std::string(core::name(op.dtype)) +
             ": rows must be multiples of 16 bytes";
  if (moe && op.shape[3] > 1024) return std::to_string(op.shape[3]) + " experts; the kernels take 1024 at most";
  if (moe && (op.shape[4] > 32 || op.shape[4] > op.shape[3]))
    return "top-" + std::to_string(op.shape[4]) + " of " + std::to_string(op.shape[3]) + " experts: no kernel";
  if (moe && op.shape[3] % op.shape[5] != 0)
    return std::to_string(op.shape[3]) + " experts on " + std::to_string(op.shape[5]) + " ranks: not a whole number";
  return std::nullopt;
}

std::optional<std::string> attention_reason(const Op& op) {
  const bool decode = op.kind == OpKind::decode_attention;
  const int64_t heads = op.shape[decode ? 2 : 3], kv_heads = op.shape[decode ? 3 : 4], dim = op.shape[decode ? 4 : 5];
  if (op.kv_dtype != Dtype::bf16 && op.kv_dtype != Dtype::fp8)
    return "no CUDA kernel for a KV cache in " + std::string(core::name(op.kv_dtype)) + "; bf16 and fp8 have one";
  if (dim != 64 && dim != 128 && dim != 256)
    return "no CUDA kernel for head_dim " + std::to_string(dim) + "; 64, 128 and 256 have one";
  if (heads % kv_heads != 0)
    return std::to_string(heads) + " heads on " + std::to_string(kv_heads) + " KV heads: not a whole number";
  return std::nullopt;
}

std::optional<std::string> mla_reason(const Op& op) {
  if (op.kv_dtype != Dtype::bf16)
    return "no CUDA kernel for MLA over a cache in " + std::string(core::name(op.kv_dtype)) + "; bf16 has one";
  if (op.kind == OpKind::sparse_mla && op.shape[0] > kMostGridRows)
    return std::to_string(op.shape[0]) + " tokens of sparse MLA; the kernel takes 65535 at most";
  if (op.shape[3] != 512 || op.shape[4] != 64)
    return "no CUDA kernel for MLA with latent " + std::to_string(op.shape[3]) + " and rope " +
           std::to_string(op.shape[4]) + "; 512 and 64 have one";
  return std::nullopt;
}

std::optional<std::string> mla_prefill_reason(const Op& op) {
  const int64_t qk = op.shape[4], value = op.shape[5];
  if ((qk == 192 && value == 128) || (qk == 256 && value == 256)) return std::nullopt;
  return "no CUDA kernel for MLA prefill with keys of " + std::to_string(qk) + " and values of " +
         std::to_string(value) + "; 192 and 128 have one, and 256 and 256";
}

// kernels/cuda/index_score.h
std::optional<std::string> index_reason(const Op& op) {
  constexpr int64_t kMostContext = (int64_t{1} << 20) - 1;
  if (!is_fp8(op.dtype))
    return "no CUDA kernel for an indexer in " + std::string(core::name(op.dtype)) + "; fp8 has one";
  if (op.shape[4] != 128 || op.shape[3] % 16 != 0 || op.shape[3] > 64)
    return "no CUDA kernel for an indexer of " + std::to_string(op.shape[3]) + " heads of " +
           std::to_string(op.shape[4]) + "; a multiple of 16 up to 64 of 128 have one";
  if (op.shape[2] > kMostContext || op.shape[0] > kMostGridRows)
    return "an indexer over " + std::to_string(op.shape[2]) + " tokens of " + std::to_string(op.shape[0]) +
           " sequences; the kernels take 1048575 and 65535 at most";
  if (op.shape[1] > op.shape[2]) return "more new tokens than the context has";
  return std::nullopt;
}

// kernels/cuda/recurrent.h
std::optional<std::string> recurrent_reason(const Op& op) {
  const bool delta = op.kind == OpKind::gated_delta;
  const int64_t heads = op.shape[delta ? 3 : 2], sharing = op.shape[delta ? 2 : 5];
  const int64_t keys = op.shape[4], values = op.shape[delta ? 5 : 3];
  if (heads % sharing != 0)
    return std::to_string(heads) + " heads share " + std::to_string(sharing) + " keys: not a whole number";
  if ((keys != 64 && keys != 128) || values % 32 != 0)
    return "no CUDA kernel for a state of " + std::to_string(keys) + " by " + std::to_string(values) +
           "; 64 or 128 by a multiple of 32 have one";
  if (op.shape[0] > kMostGridRows) return std::to_string(op.shape[0]) + " sequences; the kernel takes 65535 at most";
  return std::nullopt;
}

std::optional<std::string> elementwise_reason(const Op& op) {
  constexpr int64_t kMostVocabulary = int64_t{1} << 20;
  const int64_t read = op.shape[1], written = op.shape[2];
  if (written == 4 && read / 8 >= kMostVocabulary) return "a vocabulary of over a million: no sampling kernel";
  if (written >= read && written / 4 > kMostNormColumns)
    return "rows of " + std::to_string(written / 4) + " columns: the norm kernel takes 28672 at most";
  return std::nullopt;
}

std::optional<std::string> communication_reason(const Op& op, const Gpu& gpu) {
  const bool experts = op.kind == OpKind::moe_dispatch || op.kind == OpKind::moe_combine;
  const int64_t wanted = op.shape[experts ? 4 : 1];
  if (op.dtype != Dtype::bf16 && op.dtype != Dtype::fp32 && !is_fp8(op.dtype))
    return "no exchange of numbers in " + std::string(core::name(op.dtype)) + "; fp32, bf16 and fp8 have one";
  if (op.dtype == Dtype::fp32 && experts) return "no kernel packs rows of experts in fp32; bf16 and fp8 have one";
  if (wanted < 2) return "one GPU has nobody to exchange with";
  if (wanted > gpu.gpus)
    return "needs " + std::to_string(wanted) + " GPUs, " + std::to_string(gpu.gpus) +
           (gpu.gpus == 1 ? " is here" : " are here");
  return std::nullopt;
}

// Copies of `bytes`, all together.
double rotated(double bytes, const Gpu& gpu) {
  const auto whole = static_cast<int64_t>(bytes);
  return static_cast<double>(stride_of(whole)) * static_cast<double>(copies_of(whole, gpu.l2_bytes));
}

double scale_bytes(double rows, double cols) { return 4 * (rows + 1) * (std::ceil(cols / 128) + 1); }

double gemm_bytes(double m, double n, double k, double groups, Dtype dtype, const Gpu& gpu) {
  const double w = static_cast<double>(width(dtype));
  const double scales = is_fp8(dtype) ? scale_bytes(m * groups, k) + scale_bytes(n * groups, k) : 0;
  return groups * (m * k * w + m * n * kBf16) + rotated(groups * n * k * w, gpu) + scales;
}

double moe_bytes(const Op& op, const Gpu& gpu) {
  const auto tokens = static_cast<double>(op.shape[0]), hidden = static_cast<double>(op.shape[1]),
             inter = static_cast<double>(op.shape[2]), local = static_cast<double>(op.shape[3] / op.shape[5]);
  const auto w = static_cast<double>(width(op.dtype));
  const auto rows = static_cast<double>(most_local_pairs(op.shape[0], op.shape[4], op.shape[5]));
  const double scales = is_fp8(op.dtype)
                            ? scale_bytes(rows, hidden) + scale_bytes(rows, inter) +
                                  scale_bytes(local * 2 * inter, hidden) + scale_bytes(local * hidden, inter)
                            : 0;
  return tokens * hidden * (w + kBf16) + rows * (hidden * w + 2 * inter * kBf16 + inter * w + hidden * kBf16) +
         rotated(local * 2 * inter * hidden * w, gpu) + rotated(local * hidden * inter * w, gpu) +
         static_cast<double>(op.shape[0] * op.shape[4]) * 24 + scales;
}

double cache_bytes(double batch, double tokens, double row_bytes, const Gpu& gpu) {
  constexpr auto kBlock = static_cast<double>(kBlockTokens);
  const double blocks = batch * std::ceil(tokens / kBlock);
  return rotated(blocks * kBlock * row_bytes, gpu) + 4 * blocks;
}

double recurrent_bytes(const Op& op, const Gpu& gpu) {
  const bool delta = op.kind == OpKind::gated_delta;
  std::array<double, core::kMaxOpDims> s{};
  std::copy(op.shape.begin(), op.shape.end(), s.begin());
  const double heads = s[delta ? 3 : 2], inner = heads * s[delta ? 5 : 3], keys = 2 * s[delta ? 2 : 5] * s[4];
  return s[0] * s[1] * (2 * inner + keys + 2 * heads) * kBf16 + rotated(s[0] * inner * s[4] * 4, gpu) +
         8 * (s[0] + heads + 1);
}

double communication_bytes(const Op& op) {
  // NCCL's in and out; those of peer_all_reduce, and its parts.
  if (op.kind == OpKind::all_reduce) return 5 * static_cast<double>(op.shape[0]);
  if (op.kind != OpKind::moe_dispatch && op.kind != OpKind::moe_combine) return 2 * static_cast<double>(op.shape[0]);
  const auto tokens = static_cast<double>(op.shape[0]), hidden = static_cast<double>(op.shape[1]);
  const auto ranks = static_cast<double>(std::min(op.shape[2], op.shape[4]));
  return tokens * hidden * kBf16 * (1 + 2 * (ranks + 1)) + tokens * static_cast<double>(op.shape[2]) * 32;
}

double operand_bytes(const Op& op, const Gpu& gpu) {
  std::array<double, core::kMaxOpDims> s{};
  std::copy(op.shape.begin(), op.shape.end(), s.begin());
  const auto kv = static_cast<double>(width(op.kv_dtype));
  switch (op.kind) {
    case OpKind::gemm:
      return gemm_bytes(s[0], s[1], s[2], 1, op.dtype, gpu);
    case OpKind::batched_gemm:
      return gemm_bytes(s[0], s[1], s[2], s[3], op.dtype, gpu);
    case OpKind::moe:
      return moe_bytes(op, gpu);
    case OpKind::prefill_attention:
      return 2 * s[0] * s[1] * s[3] * s[5] * kBf16 + cache_bytes(s[0], s[1] + s[2], 2 * s[4] * s[5] * kv, gpu);
    case OpKind::decode_attention:
      return 2 * s[0] * s[2] * s[4] * kBf16 + cache_bytes(s[0], s[1], 2 * s[3] * s[4] * kv, gpu);
    case OpKind::mla_decode:
      return s[0] * s[2] * (2 * s[3] + s[4]) * kBf16 + cache_bytes(s[0], s[1], (s[3] + s[4]) * kBf16, gpu);
    case OpKind::mla_prefill:
      return s[0] * (s[1] * s[3] * (s[4] + s[5]) + (s[1] + s[2]) * (s[3] * (s[4] - kRotatedDim + s[5]) + kRotatedDim)) *
                 kBf16 +
             8 * (s[0] + 1);
    case OpKind::sparse_mla:
      return s[0] * s[2] * (2 * s[3] + s[4]) * kBf16 +
             cache_bytes(1, kSparseSpread * s[1], (s[3] + s[4]) * kBf16, gpu) + 4 * s[0] * (s[1] + 2);
    case OpKind::index_score:  // fp32 scores of all pairs
      return s[0] * s[1] * (s[3] * (s[4] + 4) + 4 * s[2] + 4 * (kIndexTopK + 1)) + cache_bytes(s[0], s[2], s[4], gpu) +
             s[0] * std::ceil(s[2] / kBlockTokens) * kBlockTokens * 4 + 8 * (s[0] + 1);
    case OpKind::gated_delta:
    case OpKind::mamba2:
      return recurrent_bytes(op, gpu);
    case OpKind::elementwise:
      return s[0] * (s[1] + s[2] + 64);
    default:
      return communication_bytes(op);
  }
}

struct KnownGpu {
  std::string_view driver_name, system;
  double memory_bytes;  // of models/data/systems
};

}  // namespace

std::optional<std::string> why_no_kernel(const Op& op, const Gpu& gpu) {
  constexpr int64_t kMostRows = INT32_MAX;  // of the contracts' index types
  const bool is_bytes = core::is_communication(op.kind);
  for (size_t i = 0; i < op.shape.size(); ++i)
    if (op.shape[i] < 0 || (op.shape[i] > kMostRows && !(is_bytes && i == 0)))
      return "an extent of " + std::to_string(op.shape[i]) + " is absurd";
  if (is_bytes) return communication_reason(op, gpu);
  if (is_product(op.kind)) return product_reason(op, gpu);
  switch (op.kind) {
    case OpKind::prefill_attention:
    case OpKind::decode_attention:
      return attention_reason(op);
    case OpKind::mla_decode:
    case OpKind::sparse_mla:
      return mla_reason(op);
    case OpKind::mla_prefill:
      return mla_prefill_reason(op);
    case OpKind::index_score:
      return index_reason(op);
    case OpKind::gated_delta:
    case OpKind::mamba2:
      return recurrent_reason(op);
    case OpKind::elementwise:
      return elementwise_reason(op);
    default:
      return "no CUDA kernel for " + std::string(core::name(op.kind));
  }
}

double bytes_needed(const Op& op, const Gpu& gpu) { return operand_bytes(op, gpu) + kWorkspaces; }

int64_t stride_of(int64_t bytes) {
  constexpr int64_t kAlignment = 256;
  return std::max<int64_t>((bytes + kAlignment - 1) / kAlignment, 1) * kAlignment;
}

int64_t copies_of(int64_t bytes, int64_t l2_bytes) {
  constexpr int64_t kMost = 4096;
  return std::min(2 * l2_bytes / stride_of(bytes) + 1, kMost);
}

int64_t launches_of(double once_us, int64_t copies) {
  constexpr double kReplay = 1000, kLongReplay = 20'000;  // [us]
  const double once = std::max(once_us, 0.1);
  if (once * static_cast<double>(copies) > kLongReplay)
    return std::min(copies, std::max<int64_t>(2, static_cast<int64_t>(kLongReplay / once)));
  return copies * static_cast<int64_t>(std::ceil(kReplay / (once * static_cast<double>(copies))));
}

std::optional<std::string> why_too_old(int driver, int runtime) {
  // Within a major version older drivers run newer programs (CUDA Compatibility guide, "Minor Version Compatibility");
  // PTX, which they could not translate, is not in this build.
  if (driver == 0) return "libcuda.so.1 is there but tells no version: is the NVIDIA driver loaded?";
  if (driver / 1000 >= runtime / 1000) return std::nullopt;
  const auto text = [](int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  };
  return "the driver is for CUDA " + text(driver) + ", this build for CUDA " + text(runtime) +
         ": want a newer driver (580 or later for CUDA 13)";
}

std::string_view architecture_of(int sm_version) {
  if (sm_version >= 100) return "blackwell";
  if (sm_version >= 90) return "hopper";
  return sm_version >= 89 ? "ada" : "ampere";
}

int64_t most_local_pairs(int64_t tokens, int64_t top_k, int64_t ep) {
  const int64_t pairs = tokens * top_k;
  if (ep <= 1) return pairs;
  // Choices of one token are different experts, so that the variance is below a binomial's.
  const double expected = static_cast<double>(pairs) / static_cast<double>(ep);
  return std::min(pairs, static_cast<int64_t>(std::ceil(expected + 6 * std::sqrt(expected))) + top_k);
}

std::string_view known_system(std::string_view gpu, double memory_bytes) {
  // Names as drivers report them; memory as in models/data/systems.
  constexpr KnownGpu kKnown[] = {
      {"NVIDIA A100-SXM4-80GB", "a100_sxm", 85.9e9},
      {"NVIDIA A100 80GB PCIe", "a100_pcie", 85.9e9},
      {"NVIDIA H100 80GB HBM3", "h100_sxm", 85.5e9},
      {"NVIDIA H100 PCIe", "h100_pcie", 85.5e9},
      {"NVIDIA H200", "h200_sxm", 150.8e9},
      {"NVIDIA H20", "h20", 102.6e9},
      {"NVIDIA GH200 144G HBM3e", "gh200", 154.6e9},
      {"NVIDIA B200", "b200_sxm", 192.3e9},
      {"NVIDIA B300 SXM6 AC", "b300_sxm", 288.4e9},
      {"NVIDIA GB200", "gb200", 198.7e9},
      {"NVIDIA GB300", "gb300", 298.0e9},
      {"NVIDIA L4", "l4", 24.2e9},
      {"NVIDIA L40S", "l40s", 48.3e9},
      {"NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000_server", 102.6e9},
  };
  constexpr double kTenth = 0.1;
  for (const KnownGpu& known : kKnown)
    if (known.driver_name == gpu && std::abs(memory_bytes / known.memory_bytes - 1) < kTenth) return known.system;
  return {};
}

}  // namespace drydock::profiler::cuda
