#pragma once
// Values as the files' formats want them: nothing a plan holds can change a file's structure.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace drydock::generators {

// Indented JSON, with a line end; bytes that are no UTF-8 become U+FFFD.
std::string json_text(const core::Json& value);

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

// `text` as a comment in any format: bytes other than printable ASCII become '?'.
std::string comment_text(std::string_view text);

// FNV-1a, 64 bits (Fowler, Noll, Vo), and the last `digits` hex digits of a number.
uint64_t fnv1a(std::string_view text);
std::string hex(uint64_t value, int digits);

}  // namespace drydock::generators
