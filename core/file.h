#pragma once
// Whole files, read with a bound and written all or nothing.
#include <filesystem>
#include <string>
#include <string_view>

namespace drydock::core {

// Throws core::Error when `file` is missing, a folder, unreadable or over `most_bytes`.
std::string read_file(const std::filesystem::path& file, size_t most_bytes = 1u << 30);

// Whether something that is no regular file, such as a pipe or /dev/stdout, has this name: renaming would replace it.
bool is_device(const std::filesystem::path& file);
// The file behind links, so that a rename to it leaves them as they are; `file` itself where there is none.
std::filesystem::path behind_links(const std::filesystem::path& file);

// Writes to a temporary name beside `file`, syncs, then renames: readers see the old content or the new, never half.
// Links stay, and devices and pipes are written to as they are. Throws core::Error naming the path.
void write_file(const std::filesystem::path& file, std::string_view content);

// Makes the folder and checks that a file can be written in it. Throws core::Error naming the path.
void make_output_dir(const std::filesystem::path& dir);

}  // namespace drydock::core
