#include "runtime/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>

#include "core/json.h"
#include "runtime/mapped_file.h"

namespace drydock::runtime {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are used as they lie in the file");

constexpr uint64_t kMostHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMostDimensions = 16;

struct StoredFormat {
  std::string_view name;
  int64_t bytes;
};
constexpr std::array<StoredFormat, 12> kFormats = {{{"F64", 8},
                                                    {"F32", 4},
                                                    {"F16", 2},
                                                    {"BF16", 2},
                                                    {"F8_E4M3", 1},
                                                    {"F8_E5M2", 1},
                                                    {"I64", 8},
                                                    {"I32", 4},
                                                    {"I16", 2},
                                                    {"I8", 1},
                                                    {"U8", 1},
                                                    {"BOOL", 1}}};

StoredDtype parse_stored_dtype(const core::Fields& fields) {
  const std::string text = fields.text("dtype");
  for (size_t i = 0; i < kFormats.size(); ++i)
    if (kFormats[i].name == text) return static_cast<StoredDtype>(i);
  throw fields.error("dtype", "'" + text + "' is not known; F32, F16 or BF16 is right");
}

uint64_t unsigned_number(const core::Fields& fields, const char* field, const core::Json& value) {
  if (!value.is_number_unsigned()) throw fields.error(field, "has to be of integers of 0 or more");
  return value.get<uint64_t>();
}

// Sets shape and elements; returns bytes.
uint64_t read_shape(const core::Fields& fields, StoredTensor& tensor) {
  const core::Json& shape = fields.array("shape");
  if (shape.size() > kMostDimensions) throw fields.error("shape", "has over 16 dimensions");
  uint64_t elements = 1;
  for (const core::Json& extent : shape) {
    const uint64_t count = unsigned_number(fields, "shape", extent);
    if (__builtin_mul_overflow(elements, count, &elements) || count >> 48 != 0 || elements >> 48 != 0)
      throw fields.error("shape", "is of more elements than any memory holds");
    tensor.shape.push_back(static_cast<int64_t>(count));
  }
  tensor.elements = static_cast<int64_t>(elements);
  return elements * static_cast<uint64_t>(element_bytes(tensor.dtype));
}

struct TensorExtent {
  uint64_t begin, end;
  const std::string* name;
};

TensorExtent read_tensor(const core::Fields& fields, const std::string& name, std::span<const std::byte> data,
                         StoredTensor& tensor) {
  fields.only({"dtype", "shape", "data_offsets"});
  tensor.dtype = parse_stored_dtype(fields);
  const uint64_t bytes = read_shape(fields, tensor);
  const core::Json& offsets = fields.array("data_offsets");
  if (offsets.size() != 2) throw fields.error("data_offsets", "has to be [begin, end]");
  const uint64_t begin = unsigned_number(fields, "data_offsets", offsets[0]);
  const uint64_t end = unsigned_number(fields, "data_offsets", offsets[1]);
  if (begin > end || end > data.size())
    throw fields.error(
        "data_offsets",
        fmt::format("[{}, {}] does not lie in the {} bytes of data; is the file cut off?", begin, end, data.size()));
  if (end - begin != bytes)
    throw fields.error("data_offsets", fmt::format("spans {} bytes, but dtype and shape need {}", end - begin, bytes));
  tensor.data = data.subspan(begin, end - begin);
  return {begin, end, &name};
}

void check_extents(std::vector<TensorExtent> extents, uint64_t data_bytes, std::string_view origin) {
  std::sort(extents.begin(), extents.end(), [](const TensorExtent& a, const TensorExtent& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (const TensorExtent& extent : extents) {
    if (extent.begin != at)
      throw core::Error(fmt::format("{}: tensor '{}' begins at byte {} of the data instead of {}: {}", origin,
                                    *extent.name, extent.begin, at,
                                    extent.begin < at ? "tensors overlap" : "there is a hole"));
    at = extent.end;
  }
  if (at != data_bytes)
    throw core::Error(fmt::format("{}: {} bytes of data, but its tensors end at {}", origin, data_bytes, at));
}

// The shard of each tensor, by the index.
std::map<std::string, std::string> read_index(const std::filesystem::path& file) {
  const core::Json document = core::read_json(file, kMostHeaderBytes);
  const core::Fields fields(document, file.string());
  const core::Json& map = fields.object("weight_map").json();
  std::map<std::string, std::string> out;
  for (const auto& [tensor, shard] : map.items()) {
    if (!shard.is_string()) throw fields.error("weight_map", "has to give each tensor a file's name");
    const std::string name = shard.get<std::string>();
    if (name.empty() || name.size() > 255 || name.front() == '.' ||
        name.find_first_of("/\\\0", 0, 3) != std::string::npos)
      throw fields.error("weight_map", "'" + name.substr(0, 80) + "' is not the name of a file of this folder");
    out[tensor] = name;
  }
  if (out.empty()) throw fields.error("weight_map", "is empty");
  return out;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace

std::string_view name(StoredDtype dtype) { return kFormats[static_cast<size_t>(dtype)].name; }
int64_t element_bytes(StoredDtype dtype) { return kFormats[static_cast<size_t>(dtype)].bytes; }

std::map<std::string, StoredTensor> parse_safetensors(std::span<const std::byte> file, std::string_view origin) {
  uint64_t length = 0;
  if (file.size() < sizeof length) throw core::Error(std::string(origin) + ": shorter than a safetensors header");
  std::memcpy(&length, file.data(), sizeof length);
  if (length > kMostHeaderBytes || length > file.size() - sizeof length)
    throw core::Error(fmt::format("{}: a header of {} bytes in a file of {}; not a safetensors file, or cut off",
                                  origin, length, file.size()));
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + sizeof length, length);
  const core::Json json = core::parse_json(header, origin, kMostHeaderBytes);
  if (!json.is_object()) throw core::Error(std::string(origin) + ": the header has to be a JSON object");
  const std::span<const std::byte> data = file.subspan(sizeof length + length);
  std::map<std::string, StoredTensor> tensors;
  std::vector<TensorExtent> extents;
  for (const auto& [tensor, description] : json.items()) {
    if (tensor == "__metadata__") continue;
    const core::Fields fields(description, std::string(origin), tensor.substr(0, 200) + ".");
    const auto at = tensors.emplace(tensor, StoredTensor{}).first;
    extents.push_back(read_tensor(fields, at->first, data, at->second));
  }
  check_extents(std::move(extents), data.size(), origin);
  return tensors;
}

Checkpoint::Checkpoint(const std::filesystem::path& model_dir) : dir_(model_dir) {
  const std::filesystem::path index = model_dir / "model.safetensors.index.json";
  if (!std::filesystem::exists(index)) {
    add(model_dir / "model.safetensors", nullptr);
    return;
  }
  const std::map<std::string, std::string> shard_of = read_index(index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) add(model_dir / shard, &shard_of);
  for (const auto& [tensor, shard] : shard_of)
    if (!tensors_.contains(tensor))
      throw core::Error(index.string() + ": weight_map: tensor '" + tensor + "' is not in " + shard);
}

void Checkpoint::add(const std::filesystem::path& file, const std::map<std::string, std::string>* shard_of) {
  auto mapped = std::make_shared<MappedFile>(file);
  for (auto& [tensor, stored] : parse_safetensors(mapped->bytes(), file.string())) {
    if (shard_of != nullptr) {
      const auto shard = shard_of->find(tensor);
      if (shard == shard_of->end() || shard->second != file.filename().string()) continue;  // as others read it
    }
    tensors_.emplace(tensor, std::move(stored));
  }
  files_.push_back(std::move(mapped));
}

const StoredTensor& Checkpoint::tensor(const std::string& name, const std::vector<int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw core::Error(dir_.string() + ": tensor '" + name + "' is missing");
  if (found->second.shape != shape)
    throw core::Error(fmt::format("{}: tensor '{}' has shape {}; config.json says {}", dir_.string(), name,
                                  shape_text(found->second.shape), shape_text(shape)));
  return found->second;
}

}  // namespace drydock::runtime
