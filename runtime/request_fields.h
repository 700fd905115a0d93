#pragma once
// Fields of a request's JSON object, whose errors are ApiErrors with the field as `param`.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/json.h"
#include "runtime/api_error.h"

namespace drydock::runtime {

class RequestFields {
 public:
  // Throws ApiError (400) when `body` is not a JSON object.
  static RequestFields parse(std::string_view body);
  explicit RequestFields(core::Json object) : object_(std::move(object)) {}

  // Absent and null are the same; of a wrong type or out of range: ApiError (400).
  const core::Json* find(const std::string& field) const;
  std::optional<int64_t> integer(const std::string& field, int64_t least, int64_t most) const;
  std::optional<double> number(const std::string& field, double least, double most) const;
  bool boolean(const std::string& field) const;  // absent: false
  const std::string* text(const std::string& field) const;

  [[noreturn]] static void refuse(const std::string& field, const std::string& reason, const std::string& code = "");

 private:
  core::Json object_;
};

}  // namespace drydock::runtime
