#pragma once
// The front as a picture of characters.
#include <string>
#include <vector>

#include "configurator/search.h"

namespace drydock::cli {

// Output tokens/s/GPU over tokens/s/user, at most 80 columns: `#` meets the targets, `o` does not, and the ranked plans
// by their numbers. Empty with fewer than 3 points. Coloured where the terminal can.
std::string front_text(const std::vector<configurator::Ranked>& front, const std::vector<configurator::Ranked>& plans);

}  // namespace drydock::cli
