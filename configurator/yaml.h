#pragma once
// YAML from strangers: bounded, without anchors, aliases and tags, with errors that name file, line and field.
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace drydock::configurator {

inline constexpr size_t kMostYamlBytes = 256u << 10;
inline constexpr int kMostYamlDepth = 8;
inline constexpr size_t kMostYamlNodes = 20'000;

struct YamlField;

// One value of a document and the line it begins on.
struct YamlNode {
  enum class Kind : uint8_t { null, scalar, list, map };
  Kind kind = Kind::null;
  int line = 1;
  std::string text;               // of a scalar
  std::vector<YamlNode> items;    // of a list
  std::vector<YamlField> fields;  // of a map, in their order; no name twice
};

struct YamlField {
  std::string name;
  YamlNode value;
};

// One document. Throws core::Error "<origin>: line N: ..." when it is not YAML, too large, too deep, repeats a key, or
// has an anchor, an alias, a tag or a second document.
YamlNode parse_yaml(std::string_view text, std::string_view origin);

// Reads the fields of one map. Every getter throws core::Error "<origin>: line N: field '<path>': ..." on a missing
// field, a wrong kind or a value out of range.
class YamlFields {
 public:
  // Throws when `node` is no map. `path` names it in errors ("stock[0]"); the origin must outlive the object.
  YamlFields(const YamlNode& node, std::string_view origin, std::string path = "");

  bool has(std::string_view field) const;  // present and not null
  const YamlNode& require(std::string_view field) const;
  std::string text(std::string_view field) const;  // 1 to 1024 bytes, no control characters
  std::string text_or(std::string_view field, std::string_view otherwise) const;
  int64_t integer(std::string_view field, int64_t least, int64_t most) const;
  double number(std::string_view field, double least, double most) const;  // finite
  double number_or(std::string_view field, double otherwise, double least, double most) const;
  std::optional<double> optional_number(std::string_view field, double least, double most) const;
  bool boolean_or(std::string_view field, bool otherwise) const;
  // A time above 0 in ms: 20, 20ms, 1.5s, 800us, 2min.
  std::optional<double> optional_ms(std::string_view field) const;
  // The elements of a list that is not empty, or the one value that stands there without a list.
  std::vector<const YamlNode*> values(std::string_view field) const;
  YamlFields map(std::string_view field) const;
  // Throws, suggesting the nearest of `known`, when the map has a field that is not among them.
  void only(std::initializer_list<std::string_view> known) const;

  const YamlNode& node() const { return *node_; }
  // The error to throw about `field`, at its line where it is there.
  core::Error error(std::string_view field, std::string_view reason) const;

 private:
  const YamlNode* find(std::string_view field) const;

  const YamlNode* node_;
  std::string_view origin_;
  std::string path_;
};

// The same of a single scalar; `what` names it in errors ("field 'gpus[1]'").
std::string scalar_text(const YamlNode& node, std::string_view origin, std::string_view what);
int64_t scalar_integer(const YamlNode& node, std::string_view origin, std::string_view what, int64_t least,
                       int64_t most);
double scalar_number(const YamlNode& node, std::string_view origin, std::string_view what, double least, double most);

// "<origin>: line N: <what>"
core::Error yaml_error(std::string_view origin, int line, std::string_view what);

}  // namespace drydock::configurator
