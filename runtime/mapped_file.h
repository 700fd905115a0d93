#pragma once
// A file's content as memory.
#include <cstddef>
#include <filesystem>
#include <span>

namespace drydock::runtime {

// Read-only. A file that is cut shorter while it is mapped ends the process (SIGBUS) where the missing part is read.
class MappedFile {
 public:
  // Throws core::Error naming the file when it is missing, not a regular file or can't be mapped.
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace drydock::runtime
