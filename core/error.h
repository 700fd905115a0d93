#pragma once
// The one exception the libraries throw: bad input or a failed call, told in one line.
#include <stdexcept>
#include <string>
#include <utility>

namespace drydock::core {

// `what()` is a single line that names the file, field or flag, what was wrong and what would be right.
// The command line prints it after "drydock: " and exits with 2.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string message) : std::runtime_error(one_line(std::move(message))) {}

 private:
  // Messages quote input, which may hold line ends and terminal escapes.
  static std::string one_line(std::string message) {
    for (char& c : message)
      if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
    return message;
  }
};

}  // namespace drydock::core
