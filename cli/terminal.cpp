#include "cli/terminal.h"

#include <unistd.h>

#include <cstdlib>

namespace drydock::cli {

bool colour_on_stdout() {
  static const bool on = [] {
    const char *no = std::getenv("NO_COLOR"), *term = std::getenv("TERM");
    return ::isatty(STDOUT_FILENO) == 1 && !(no && *no) && term && std::string_view(term) != "dumb";
  }();
  return on;
}

std::string styled(Style style, std::string_view text) {
  if (!colour_on_stdout()) return std::string(text);
  const char* code = style == Style::strong ? "1" : style == Style::good ? "32" : style == Style::bad ? "31" : "2";
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

}  // namespace drydock::cli
