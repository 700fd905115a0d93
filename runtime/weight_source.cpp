#include "runtime/weight_source.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "kernels/convert.h"
#include "runtime/safetensors.h"

namespace drydock::runtime {
namespace {

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16U, rest = half & 0x7FFFU;
  if (rest >= 0x7C00U) return std::bit_cast<float>(sign | 0x7F800000U | (rest & 0x3FFU) << 13U);  // inf, NaN
  // The exponent's bias is moved by a product, which normalises subnormal numbers on the way.
  const float magnitude = std::bit_cast<float>(rest << 13U) * 0x1p112F;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
}

void narrow_row_to(const std::vector<float>& row, core::Dtype dtype, std::byte* out) {
  kernels::narrow(row.data(), static_cast<int64_t>(row.size()), 1, dtype, out);
}

class CheckpointWeights : public WeightSource {
 public:
  explicit CheckpointWeights(const std::filesystem::path& model_dir) : checkpoint_(model_dir) {}

  void read(const WeightPart& part, core::Dtype dtype, void* out) const override {
    std::vector<int64_t> shape = {part.all_rows, part.all_cols};
    if (part.vector) shape.erase(shape.begin());
    const StoredTensor& stored = checkpoint_.tensor(part.name, shape);
    const auto each = static_cast<size_t>(element_bytes(stored.dtype)), cols = static_cast<size_t>(part.cols);
    const size_t out_bytes = cols * (dtype == core::Dtype::fp32 ? 4 : 2);
    std::vector<float> wide(cols);
    for (int64_t r = 0; r < part.rows; ++r) {
      const auto first = static_cast<size_t>((part.row + r) * part.all_cols + part.col);
      const std::byte* from = stored.data.data() + first * each;
      std::byte* to = static_cast<std::byte*>(out) + static_cast<size_t>(r) * out_bytes;
      if (is_same(stored.dtype, dtype)) {
        std::memcpy(to, from, out_bytes);
        continue;
      }
      widen_row(part.name, stored.dtype, from, wide);
      narrow_row_to(wide, dtype, to);
    }
  }

 private:
  static bool is_same(StoredDtype stored, core::Dtype wanted) {
    return (stored == StoredDtype::f32 && wanted == core::Dtype::fp32) ||
           (stored == StoredDtype::bf16 && wanted == core::Dtype::bf16);
  }

  // The file need not keep elements aligned.
  static void widen_row(const std::string& name, StoredDtype dtype, const std::byte* from, std::vector<float>& out) {
    if (dtype == StoredDtype::f32) {
      std::memcpy(out.data(), from, out.size() * sizeof(float));
      return;
    }
    if (dtype != StoredDtype::f16 && dtype != StoredDtype::bf16)
      throw core::Error(fmt::format("tensor '{}' is {}; F32, F16 or BF16 is right", name, runtime::name(dtype)));
    std::vector<uint16_t> halves(out.size());
    std::memcpy(halves.data(), from, halves.size() * sizeof(uint16_t));
    if (dtype == StoredDtype::bf16)
      kernels::widen(halves.data(), core::Dtype::bf16, static_cast<int64_t>(out.size()), 1, out.data());
    else
      for (size_t i = 0; i < out.size(); ++i) out[i] = half_to_float(halves[i]);
  }

  Checkpoint checkpoint_;
};

class RandomWeights : public WeightSource {
 public:
  explicit RandomWeights(uint64_t seed) : key_(core::mix(seed + kGolden)) {}

  void read(const WeightPart& part, core::Dtype dtype, void* out) const override {
    const uint64_t key = key_ ^ hash(part.name);
    const auto factor = static_cast<float>(std::sqrt(12.0 / static_cast<double>(part.all_cols)));
    const auto cols = static_cast<size_t>(part.cols);
    std::vector<float> wide(cols);
    for (int64_t r = 0; r < part.rows; ++r) {
      const auto first = static_cast<uint64_t>((part.row + r) * part.all_cols + part.col);
      for (size_t c = 0; c < cols; ++c) {
        const uint64_t bits = core::mix(key + (first + c + 1) * kGolden);
        const float u = static_cast<float>(static_cast<int32_t>(bits >> 40)) * 0x1p-24F - 0.5F;
        wide[c] = part.vector ? 1 + u / 5 : u * factor;
      }
      narrow_row_to(
          wide, dtype,
          static_cast<std::byte*>(out) + static_cast<size_t>(r) * cols * (dtype == core::Dtype::fp32 ? 4 : 2));
    }
  }

 private:
  static constexpr uint64_t kGolden = 0x9E3779B97F4A7C15U;

  // FNV-1a, 64 bits (Fowler, Noll, Vo).
  static uint64_t hash(const std::string& name) {
    uint64_t h = 0xCBF29CE484222325U;
    for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
    return h;
  }

  uint64_t key_;
};

}  // namespace

std::unique_ptr<WeightSource> checkpoint_weights(const std::filesystem::path& model_dir) {
  return std::make_unique<CheckpointWeights>(model_dir);
}
std::unique_ptr<WeightSource> random_weights(uint64_t seed) { return std::make_unique<RandomWeights>(seed); }

}  // namespace drydock::runtime
