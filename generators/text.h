#pragma once
// Values as the files' formats want them: nothing a plan holds can change a file's structure.
#include <string>
#include <string_view>

#include "core/json.h"

namespace drydock::generators {

// Block-style YAML of `value`, by yaml-cpp's emitter; strings that YAML would read as something else are quoted. Ends
// with a line end.
std::string yaml(const core::Json& value);
// Several documents, "---" between them.
std::string yaml(const std::vector<core::Json>& documents);

// A DNS label (RFC 1123): lower case, digits and '-', 1 to `most` characters, begins and ends with one of the former
// two; from any text. Texts that had to be changed beyond their case get a hash of the whole at the end, so that
// different ones stay different.
std::string safe_name(std::string_view text, size_t most = 63);

// `text` as one word of a POSIX shell, in single quotes where it needs them.
std::string shell_word(std::string_view text);

}  // namespace drydock::generators
