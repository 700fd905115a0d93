#include "configurator/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <sstream>

#include "core/text.h"

namespace drydock::configurator {
namespace {

constexpr size_t kMostScalarBytes = 1024;

// Builds the tree from the parser's events, so that what is refused is never built.
class YamlBuilder : public YAML::EventHandler {
 public:
  explicit YamlBuilder(std::string_view origin) : origin_(origin) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    add({YamlNode::Kind::null, line_of(mark), "", {}, {}});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { throw refused(mark); }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { throw refused(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& value) override {
    check_tag(mark, tag);
    add({YamlNode::Kind::scalar, line_of(mark), value, {}, {}});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, YamlNode::Kind::list);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    open(mark, tag, YamlNode::Kind::map);
  }
  void OnMapEnd() override { close(); }

  YamlNode take() { return std::move(root_); }

 private:
  struct Level {
    YamlNode node;
    std::optional<std::string> key;  // whose value comes next
    std::set<std::string> seen;
  };

  static int line_of(const YAML::Mark& mark) { return std::max(0, mark.line) + 1; }

  core::Error refused(const YAML::Mark& mark) const {
    return yaml_error(origin_, line_of(mark), "anchors and aliases are not read here; write the value out");
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!")
      throw yaml_error(origin_, line_of(mark), "tags such as '" + tag.substr(0, 40) + "' are not read here");
  }

  void open(const YAML::Mark& mark, const std::string& tag, YamlNode::Kind kind) {
    check_tag(mark, tag);
    if (levels_.size() >= kMostYamlDepth)
      throw yaml_error(origin_, line_of(mark), fmt::format("nested deeper than {} levels", kMostYamlDepth));
    levels_.push_back({{kind, line_of(mark), "", {}, {}}, {}, {}});
  }

  void close() {
    YamlNode done = std::move(levels_.back().node);
    levels_.pop_back();
    add(std::move(done));
  }

  void add(YamlNode node) {
    if (++nodes_ > kMostYamlNodes)
      throw yaml_error(origin_, node.line, fmt::format("more than {} values", kMostYamlNodes));
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == YamlNode::Kind::list) {
      level.node.items.push_back(std::move(node));
    } else if (!level.key) {
      if (node.kind != YamlNode::Kind::scalar) throw yaml_error(origin_, node.line, "a key must be plain text");
      if (!level.seen.insert(node.text).second)
        throw yaml_error(origin_, node.line, "key '" + node.text.substr(0, 60) + "' is there twice");
      level.key = std::move(node.text);
    } else {
      level.node.fields.push_back({std::move(*level.key), std::move(node)});
      level.key.reset();
    }
  }

  std::string origin_;
  YamlNode root_;
  std::vector<Level> levels_;
  size_t nodes_ = 0;
};

const char* kind_name(YamlNode::Kind kind) {
  switch (kind) {
    case YamlNode::Kind::null:
      return "nothing";
    case YamlNode::Kind::scalar:
      return "a single value";
    case YamlNode::Kind::list:
      return "a list";
    case YamlNode::Kind::map:
      return "a map";
  }
  return "";
}

std::string number_words(double least, double most) { return fmt::format("want a number from {} to {}", least, most); }

std::string field_words(const std::string& path, std::string_view field) {
  return fmt::format("field '{}{}{}'", path, path.empty() ? "" : ".", field.substr(0, 80));
}

}  // namespace

core::Error yaml_error(std::string_view origin, int line, std::string_view what) {
  return core::Error(fmt::format("{}: line {}: {}", origin, line, what));
}

YamlNode parse_yaml(std::string_view text, std::string_view origin) {
  if (text.size() > kMostYamlBytes)
    throw core::Error(fmt::format("{}: {} bytes of YAML; at most {}", origin, text.size(), kMostYamlBytes));
  if (text.find('\0') != std::string_view::npos)
    throw core::Error(std::string(origin) + ": holds a zero byte; want text");
  std::istringstream in{std::string(text)};
  YamlBuilder builder(origin);
  try {
    YAML::Parser parser(in);
    if (!parser.HandleNextDocument(builder)) throw core::Error(std::string(origin) + ": is empty");
    YamlNode root = builder.take();
    YamlBuilder rest(origin);
    if (parser.HandleNextDocument(rest))
      throw core::Error(std::string(origin) + ": has more than one document; want one");
    return root;
  } catch (const YAML::Exception& e) {
    throw yaml_error(origin, std::max(0, e.mark.line) + 1, e.msg);
  }
}

std::string scalar_text(const YamlNode& node, std::string_view origin, std::string_view what) {
  const auto bad = [&](std::string_view why) {
    return yaml_error(origin, node.line, fmt::format("{}: {}", what, why));
  };
  if (node.kind != YamlNode::Kind::scalar) throw bad(fmt::format("want text, found {}", kind_name(node.kind)));
  const auto is_control = [](unsigned char c) { return c < 32 || c == 127; };
  if (node.text.empty() || node.text.size() > kMostScalarBytes ||
      std::any_of(node.text.begin(), node.text.end(), is_control))
    throw bad("want 1 to 1024 bytes without control characters");
  return node.text;
}

double scalar_number(const YamlNode& node, std::string_view origin, std::string_view what, double least, double most) {
  const std::string text = scalar_text(node, origin, what);
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || !(value >= least && value <= most))
    throw yaml_error(origin, node.line,
                     fmt::format("{}: {}, found '{}'", what, number_words(least, most), text.substr(0, 60)));
  return value;
}

int64_t scalar_integer(const YamlNode& node, std::string_view origin, std::string_view what, int64_t least,
                       int64_t most) {
  const std::string text = scalar_text(node, origin, what);
  int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || value < least || value > most)
    throw yaml_error(
        origin, node.line,
        fmt::format("{}: want a whole number from {} to {}, found '{}'", what, least, most, text.substr(0, 60)));
  return value;
}

YamlFields::YamlFields(const YamlNode& node, std::string_view origin, std::string path)
    : node_(&node), origin_(origin), path_(std::move(path)) {
  if (node.kind != YamlNode::Kind::map)
    throw yaml_error(origin, node.line,
                     fmt::format("{}want a map of fields, found {}",
                                 path_.empty() ? "" : "field '" + path_ + "': ", kind_name(node.kind)));
}

const YamlNode* YamlFields::find(std::string_view field) const {
  for (const auto& [name, value] : node_->fields)
    if (name == field) return &value;
  return nullptr;
}

core::Error YamlFields::error(std::string_view field, std::string_view reason) const {
  const YamlNode* found = find(field);
  return yaml_error(origin_, found ? found->line : node_->line,
                    fmt::format("{}: {}", field_words(path_, field), reason));
}

bool YamlFields::has(std::string_view field) const {
  const YamlNode* found = find(field);
  return found && found->kind != YamlNode::Kind::null;
}

const YamlNode& YamlFields::require(std::string_view field) const {
  if (!has(field)) throw error(field, "missing");
  return *find(field);
}

std::string YamlFields::text(std::string_view field) const {
  return scalar_text(require(field), origin_, field_words(path_, field));
}

std::string YamlFields::text_or(std::string_view field, std::string_view otherwise) const {
  return has(field) ? text(field) : std::string(otherwise);
}

int64_t YamlFields::integer(std::string_view field, int64_t least, int64_t most) const {
  return scalar_integer(require(field), origin_, field_words(path_, field), least, most);
}

double YamlFields::number(std::string_view field, double least, double most) const {
  return scalar_number(require(field), origin_, field_words(path_, field), least, most);
}

double YamlFields::number_or(std::string_view field, double otherwise, double least, double most) const {
  return has(field) ? number(field, least, most) : otherwise;
}

std::optional<double> YamlFields::optional_number(std::string_view field, double least, double most) const {
  return has(field) ? std::optional(number(field, least, most)) : std::nullopt;
}

bool YamlFields::boolean_or(std::string_view field, bool otherwise) const {
  if (!has(field)) return otherwise;
  const std::string value = text(field);
  if (value != "true" && value != "false")
    throw error(field, "want true or false, found '" + value.substr(0, 60) + "'");
  return value == "true";
}

std::optional<double> YamlFields::optional_ms(std::string_view field) const {
  if (!has(field)) return std::nullopt;
  constexpr double kMostMs = 1e9;
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1}, {"ms", 1}, {"s", 1000}, {"us", 1e-3}, {"min", 60'000}};
  const std::string value = text(field);
  double number = 0;
  const auto [end, status] = std::from_chars(value.data(), value.data() + value.size(), number);
  const std::string_view unit(end, static_cast<size_t>(value.data() + value.size() - end));
  for (const auto& [name, factor] : kUnits)
    if (status == std::errc{} && unit == name && number > 0 && number * factor <= kMostMs) return number * factor;
  throw error(field, "want a time above 0 such as 20, 20ms or 1.5s, found '" + value.substr(0, 60) + "'");
}

std::vector<const YamlNode*> YamlFields::values(std::string_view field) const {
  const YamlNode& node = require(field);
  if (node.kind != YamlNode::Kind::list) return {&node};
  if (node.items.empty()) throw error(field, "the list is empty");
  std::vector<const YamlNode*> out;
  for (const YamlNode& item : node.items) out.push_back(&item);
  return out;
}

YamlFields YamlFields::map(std::string_view field) const {
  return YamlFields(require(field), origin_, path_ + (path_.empty() ? "" : ".") + std::string(field));
}

void YamlFields::only(std::initializer_list<std::string_view> known) const {
  for (const auto& [name, value] : node_->fields) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    throw yaml_error(origin_, value.line,
                     field_words(path_, name) + ": not known here" +
                         core::suggestion(name.substr(0, 80), {known.begin(), known.end()}));
  }
}

}  // namespace drydock::configurator
