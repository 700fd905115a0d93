#pragma once
// Self-contained HTML pages: one template, which the build puts together from cli/data, and one object of data.
#include <filesystem>
#include <string>
#include <string_view>

#include "core/json.h"

namespace drydock::cli {

// JSON that can stand inside a <script> element: ASCII, and no '<', '>' or '&' in it. Numbers keep five digits; bytes
// that are not UTF-8 become U+FFFD.
std::string island_text(const core::Json& data);

// The template of the data folder with `data` as its island; `schema` in it says what the page shows. Throws
// core::Error naming the template when it is missing or has no place for data.
std::string page_html(std::string_view schema, const core::Json& data);

// Checks before the work that the page can be written: its folder is there, it is no folder, and the template is there.
// Throws core::Error naming `flag`.
void check_page_target(const std::filesystem::path& file, std::string_view flag);

}  // namespace drydock::cli
