#pragma once
// Weights of a Hugging Face folder: safetensors files, mapped into memory and never copied whole.
//
// The format (github.com/huggingface/safetensors, "Format"): 8 bytes little-endian length of the header, the header as
// JSON {name: {dtype, shape, data_offsets: [begin, end]}, __metadata__: {text: text}}, then the data without holes.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::runtime {

enum class StoredDtype : uint8_t { f64, f32, f16, bf16, f8_e4m3, f8_e5m2, i64, i32, i16, i8, u8, boolean };

// A tensor as it lies in the file, row-major, little-endian. Data need not be aligned to its elements.
struct StoredTensor {
  StoredDtype dtype = StoredDtype::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
  int64_t elements = 1;  // product of shape
};

std::string_view name(StoredDtype dtype);  // as the format writes it: "BF16"
int64_t element_bytes(StoredDtype dtype);

// The tensors that `file`, the content of a safetensors file, has; `origin` names it in errors. Data are spans of
// `file`. Throws core::Error when the header is over 100 MB or not JSON of the form above, on an unknown dtype, a shape
// whose product overflows or does not fit the offsets, tensors that overlap or leave holes, and names that come twice.
std::map<std::string, StoredTensor> parse_safetensors(std::span<const std::byte> file, std::string_view origin);

// All tensors of a folder: those of model.safetensors.index.json's shards, or of model.safetensors.
class Checkpoint {
 public:
  // Throws core::Error naming the file: missing, broken, a shard's name that leaves the folder, a tensor that is not in
  // the shard that the index says or is in two.
  explicit Checkpoint(const std::filesystem::path& model_dir);

  bool has(std::string_view name) const { return tensors_.contains(std::string(name)); }
  // Throws core::Error naming the tensor when it is missing or of another shape.
  const StoredTensor& tensor(const std::string& name, const std::vector<int64_t>& shape) const;
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }

 private:
  void add(const std::filesystem::path& file, const std::map<std::string, std::string>* shard_of);

  std::filesystem::path dir_;
  std::vector<std::shared_ptr<const void>> files_;  // mapped
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace drydock::runtime
