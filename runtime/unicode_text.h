#pragma once
// Text as tokenizers want it: valid UTF-8, and in one of the forms in which the same text can be written.
#include <cstdint>
#include <string>
#include <string_view>

namespace drydock::runtime {

// `text` with every longest piece that begins a character but does not end it, and every other stray byte, replaced by
// U+FFFD: what Python's bytes.decode(errors="replace") gives (Unicode Standard, section 3.9, "maximal subparts").
std::string valid_utf8(std::string_view text);

// Normalization form C of valid UTF-8 (Unicode Standard Annex 15), in time that grows as n log n also for long runs of
// combining marks.
std::string nfc(std::string_view text);

void append_utf8(uint32_t code_point, std::string& out);

// The character that begins at `at` of valid UTF-8; moves `at` behind it.
uint32_t next_code_point(std::string_view text, size_t& at);

// Python's str.strip().
std::string_view strip(std::string_view text);

}  // namespace drydock::runtime
