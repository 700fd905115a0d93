#pragma once
// A refusal as OpenAI's clients expect it: an HTTP status and {"error": {"message", "type", "param", "code"}}.
#include <string>

#include "core/error.h"

namespace drydock::runtime {

class ApiError : public core::Error {
 public:
  // `param`: the field of the request at fault, may be empty; `code` as well.
  ApiError(int status, std::string message, std::string param = "", std::string code = "")
      : Error(std::move(message)), status_(status), param_(std::move(param)), code_(std::move(code)) {}

  int status() const { return status_; }
  const std::string& param() const { return param_; }
  const std::string& code() const { return code_; }
  std::string json() const;  // the body

 private:
  int status_;
  std::string param_, code_;
};

// OpenAI's word for a status: "invalid_request_error", "authentication_error", ...
const char* error_type(int status);

}  // namespace drydock::runtime
