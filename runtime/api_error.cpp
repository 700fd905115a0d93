#include "runtime/api_error.h"

#include "core/json.h"

namespace drydock::runtime {

const char* error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

std::string ApiError::json() const {
  const auto text_or_null = [](const std::string& text) { return text.empty() ? core::Json() : core::Json(text); };
  const core::Json body = {{"error",
                            {{"message", what()},
                             {"type", error_type(status_)},
                             {"param", text_or_null(param_)},
                             {"code", text_or_null(code_)}}}};
  // Messages quote what was sent, cut at some byte.
  return body.dump(-1, ' ', false, core::Json::error_handler_t::replace);
}

}  // namespace drydock::runtime
