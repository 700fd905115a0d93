#pragma once
// Where a model's weights come from: a checkpoint, or made up.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "core/dtype.h"
#include "runtime/model_config.h"

namespace drydock::runtime {

// A part of a tensor (all_rows, all_cols) that a checkpoint names; a vector has one row.
struct WeightPart {
  std::string name;
  int64_t all_rows = 1, all_cols = 0;
  bool vector = false;
  int64_t row = 0, rows = 1, col = 0, cols = 0;
};

// Safe to use from many threads.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Writes the part, row after row, as fp32 or bf16 (rounded to nearest even). Throws core::Error naming the tensor.
  virtual void read(const WeightPart& part, core::Dtype dtype, void* out) const = 0;
};

// Of model_dir's safetensors. fp32, fp16 and bf16 tensors are taken.
std::unique_ptr<WeightSource> checkpoint_weights(const std::filesystem::path& model_dir);

// Weights that depend on seed, name and place alone, so that anyone can make the same: element i of a tensor is
//   bits = mix(mix(seed + g) ^ fnv1a64(name), i + 1), where mix(key, n) = splitmix64's finaliser of key + n g,
//   g = 0x9E3779B97F4A7C15;  u = (bits >> 40) / 2^24 - 1/2;
//   matrices: u * float(sqrt(12 / cols)), which has standard deviation 1 / sqrt(cols);  vectors (norms): 1 + u / 5;
// in fp32. Outputs of every layer are then of order 1, whatever the model's size.
std::unique_ptr<WeightSource> random_weights(uint64_t seed);

}  // namespace drydock::runtime
