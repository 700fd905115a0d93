#pragma once
// JSON from strangers: bounded, without duplicate keys, with errors that name source and field.
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace drydock::core {

using Json = nlohmann::ordered_json;

inline constexpr size_t kMaxJsonBytes = 16u << 20;
inline constexpr int kMaxJsonDepth = 64;

// Throws core::Error naming `origin` when the text is not JSON (then the line too), too large, too deep, or repeats a
// key.
Json parse_json(std::string_view text, std::string_view origin, size_t most_bytes = kMaxJsonBytes);
Json read_json(const std::filesystem::path& file, size_t most_bytes = kMaxJsonBytes);

// Reads the fields of one object. Every getter throws core::Error "<origin>: field '<path>': ..." on a missing field,
// a wrong type or a value out of range; numbers must be finite.
class Fields {
 public:
  // Throws when `object` is not an object. `path` prefixes the field names in errors ("pools[0].").
  Fields(const Json& object, std::string origin, std::string path = "");

  bool has(std::string_view field) const;  // present and not null
  int64_t integer(std::string_view field, int64_t least, int64_t most) const;
  int64_t integer_or(std::string_view field, int64_t otherwise, int64_t least, int64_t most) const;
  double number(std::string_view field, double least, double most) const;
  double number_or(std::string_view field, double otherwise, double least, double most) const;
  std::optional<double> optional_number(std::string_view field, double least, double most) const;
  bool boolean_or(std::string_view field, bool otherwise) const;
  std::string text(std::string_view field) const;  // at most 4096 bytes, no control characters
  std::string text_or(std::string_view field, std::string_view otherwise) const;
  const Json& array(std::string_view field) const;
  const Json& require(std::string_view field) const;  // of any type
  Fields object(std::string_view field) const;
  // Throws, suggesting the nearest of `known`, when the object has a field that is not among them.
  void only(std::initializer_list<std::string_view> known) const;
  // The error to throw about `field` for a reason of the caller's.
  Error error(std::string_view field, std::string_view reason) const;

  const Json& json() const { return *object_; }
  const std::string& origin() const { return origin_; }

 private:
  const Json* object_;
  std::string origin_, path_;
};

}  // namespace drydock::core
