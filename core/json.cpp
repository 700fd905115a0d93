#include "core/json.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/file.h"
#include "core/text.h"

namespace drydock::core {
namespace {

// Builds the document while it checks what nlohmann's own parser lets pass: depth and repeated keys.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, std::string_view origin) : text_(text), origin_(origin) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string& text) override {
    if (!std::isfinite(value)) throw Error(origin_ + ": number " + text.substr(0, 40) + " does not fit a double");
    return add(value);
  }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& value) override {
    Level& level = levels_.back();
    if (!level.keys.insert(value).second)
      throw Error(origin_ + ": field '" + value.substr(0, 80) + "' is there twice; keep one");
    level.key = std::move(value);
    return true;
  }
  bool parse_error(size_t position, const std::string& token, const nlohmann::detail::exception&) override {
    std::string shown = token.substr(0, 40);
    std::replace_if(
        shown.begin(), shown.end(), [](unsigned char c) { return c < 32 || c > 126; }, '?');
    const auto end = text_.begin() + static_cast<long>(std::min(position, text_.size()));
    throw Error(origin_ + ": line " + std::to_string(1 + std::count(text_.begin(), end, '\n')) + ": not JSON near '" +
                shown + "'");
  }

 private:
  struct Level {
    Json value;
    std::string key;
    std::set<std::string> keys;
  };

  template <typename Value>
  bool add(Value&& value) {
    if (levels_.empty())
      root_ = std::forward<Value>(value);
    else if (Level& level = levels_.back(); level.value.is_array())
      level.value.push_back(std::forward<Value>(value));
    // The key is known to be new, so the search for it that operator[] would make is spared.
    else
      level.value.get_ref<Json::object_t&>().emplace_back(std::move(level.key), Json(std::forward<Value>(value)));
    return true;
  }
  bool open(Json value) {
    if (levels_.size() >= kMaxJsonDepth)
      throw Error(origin_ + ": nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    levels_.push_back({std::move(value), {}, {}});
    return true;
  }
  bool close() {
    Json value = std::move(levels_.back().value);
    levels_.pop_back();
    return add(std::move(value));
  }

  std::string_view text_;
  std::string origin_;
  Json root_;
  std::vector<Level> levels_;
};

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 32 || c == 127; });
}

}  // namespace

Json parse_json(std::string_view text, std::string_view origin, size_t most_bytes) {
  if (text.size() > most_bytes)
    throw Error(std::string(origin) + ": " + std::to_string(text.size()) + " bytes of JSON; at most " +
                std::to_string(most_bytes));
  Builder builder(text, origin);
  Json::sax_parse(text, &builder);
  return builder.take();
}

Json read_json(const std::filesystem::path& file, size_t most_bytes) {
  return parse_json(read_file(file, most_bytes), file.string(), most_bytes);
}

Fields::Fields(const Json& object, std::string origin, std::string path)
    : object_(&object), origin_(std::move(origin)), path_(std::move(path)) {
  if (!object.is_object())
    throw Error(origin_ + (path_.empty() ? "" : ": field '" + path_ + "'") + ": want a JSON object, found " +
                object.type_name());
  if (!path_.empty()) path_ += '.';
}

Error Fields::error(std::string_view field, std::string_view reason) const {
  return Error(origin_ + ": field '" + path_ + std::string(field) + "': " + std::string(reason));
}

bool Fields::has(std::string_view field) const {
  const auto found = object_->find(std::string(field));
  return found != object_->end() && !found->is_null();
}

const Json& Fields::require(std::string_view field) const {
  const auto found = object_->find(std::string(field));
  if (found == object_->end() || found->is_null()) throw error(field, "missing");
  return *found;
}

int64_t Fields::integer(std::string_view field, int64_t least, int64_t most) const {
  const Json& value = require(field);
  const std::string want = "want a whole number from " + std::to_string(least) + " to " + std::to_string(most);
  if (!value.is_number_integer())
    throw error(field, want + ", found " + value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60));
  const bool huge = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (huge || value.get<int64_t>() < least || value.get<int64_t>() > most)
    throw error(field, want + ", found " + value.dump());
  return value.get<int64_t>();
}

int64_t Fields::integer_or(std::string_view field, int64_t otherwise, int64_t least, int64_t most) const {
  return has(field) ? integer(field, least, most) : otherwise;
}

double Fields::number(std::string_view field, double least, double most) const {
  const Json& value = require(field);
  const std::string want = "want a number from " + number_text(least) + " to " + number_text(most);
  if (!value.is_number())
    throw error(field, want + ", found " + value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60));
  const double number = value.get<double>();
  if (!(number >= least && number <= most)) throw error(field, want + ", found " + number_text(number));
  return number;
}

double Fields::number_or(std::string_view field, double otherwise, double least, double most) const {
  return has(field) ? number(field, least, most) : otherwise;
}

std::optional<double> Fields::optional_number(std::string_view field, double least, double most) const {
  return has(field) ? std::optional(number(field, least, most)) : std::nullopt;
}

bool Fields::boolean_or(std::string_view field, bool otherwise) const {
  if (!has(field)) return otherwise;
  const Json& value = require(field);
  if (!value.is_boolean()) throw error(field, std::string("want true or false, found ") + value.type_name());
  return value.get<bool>();
}

std::string Fields::text(std::string_view field) const {
  const Json& value = require(field);
  if (!value.is_string()) throw error(field, std::string("want a string, found ") + value.type_name());
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > 4096 || has_control(text)) throw error(field, "want at most 4096 bytes without control characters");
  return text;
}

std::string Fields::text_or(std::string_view field, std::string_view otherwise) const {
  return has(field) ? text(field) : std::string(otherwise);
}

const Json& Fields::array(std::string_view field) const {
  const Json& value = require(field);
  if (!value.is_array()) throw error(field, std::string("want an array, found ") + value.type_name());
  return value;
}

Fields Fields::object(std::string_view field) const {
  return Fields(require(field), origin_, path_ + std::string(field));
}

void Fields::only(std::initializer_list<std::string_view> known) const {
  for (const auto& [name, value] : object_->items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    throw error(name.substr(0, 80), "not known here" + suggestion(name, {known.begin(), known.end()}));
  }
}

}  // namespace drydock::core
