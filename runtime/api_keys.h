#pragma once
// Bearer keys, and who has one.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::runtime {

// One key a line, blank lines and those that start with # left out. Throws core::Error on an empty file, and on a key
// that is shorter than 16 characters or has others than visible ASCII.
std::vector<std::string> read_api_keys(const std::filesystem::path& file);
// Keys with commas between, as an environment variable has them; `name` is the variable's, for errors.
std::vector<std::string> split_api_keys(std::string_view text, std::string_view name);

// Whether the value of an Authorization header is "Bearer " and one of the keys. Its time depends on the lengths of the
// header and the keys alone, not on where they differ.
bool bearer_allowed(std::string_view header, const std::vector<std::string>& keys);

}  // namespace drydock::runtime
