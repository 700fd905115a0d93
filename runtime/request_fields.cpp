#include "runtime/request_fields.h"

namespace drydock::runtime {
namespace {

// core's own readers, with the field told apart from the message.
template <typename Read>
auto read_field(const core::Json& object, const std::string& field, Read read) {
  try {
    return read(core::Fields(object, "request"));
  } catch (const core::Error& error) {
    throw ApiError(400, error.what(), field);
  }
}

}  // namespace

RequestFields RequestFields::parse(std::string_view body) {
  try {
    RequestFields out(core::parse_json(body, "request"));
    core::Fields check(out.object_, "request");
    return out;
  } catch (const core::Error& error) {
    throw ApiError(400, error.what());
  }
}

const core::Json* RequestFields::find(const std::string& field) const {
  const auto found = object_.find(field);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<int64_t> RequestFields::integer(const std::string& field, int64_t least, int64_t most) const {
  if (!find(field)) return std::nullopt;
  return read_field(object_, field, [&](const core::Fields& fields) { return fields.integer(field, least, most); });
}

std::optional<double> RequestFields::number(const std::string& field, double least, double most) const {
  if (!find(field)) return std::nullopt;
  return read_field(object_, field, [&](const core::Fields& fields) { return fields.number(field, least, most); });
}

bool RequestFields::boolean(const std::string& field) const {
  return read_field(object_, field, [&](const core::Fields& fields) { return fields.boolean_or(field, false); });
}

const std::string* RequestFields::text(const std::string& field) const {
  const core::Json* value = find(field);
  if (!value) return nullptr;
  if (!value->is_string()) refuse(field, std::string("want a string, found ") + value->type_name());
  return &value->get_ref<const std::string&>();
}

void RequestFields::refuse(const std::string& field, const std::string& reason, const std::string& code) {
  throw ApiError(400, "request: field '" + field + "': " + reason, field, code);
}

}  // namespace drydock::runtime
