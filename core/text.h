#pragma once
// Names as people type them.
#include <string>
#include <string_view>
#include <vector>

namespace drydock::core {

// The element of `names` nearest to `text` by edit distance, case ignored; empty when none is near enough to suggest.
std::string nearest(std::string_view text, const std::vector<std::string>& names);

// ", did you mean 'x'?" or "".
std::string suggestion(std::string_view text, const std::vector<std::string>& names);

std::string lower_case(std::string_view text);

}  // namespace drydock::core
