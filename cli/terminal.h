#pragma once
// Colour for people at a terminal; none in pipes and files.
#include <string>
#include <string_view>

namespace drydock::cli {

enum class Style : int { strong, good, bad, quiet };

// Stdout is a terminal that can (TERM is not dumb), and NO_COLOR (https://no-color.org) is unset or empty.
bool colour_on_stdout();

// `text` with the escapes of `style` around it, or as it is where colour is off. Takes no width of its own.
std::string styled(Style style, std::string_view text);

}  // namespace drydock::cli
