#pragma once
// The one exception the libraries throw: bad input or a failed call, told in one line.
#include <stdexcept>
#include <string>

namespace drydock::core {

// `what()` is a single line that names the file, field or flag, what was wrong and what would be right.
// The command line prints it after "drydock: " and exits with 2.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace drydock::core
