#pragma once
// A file that grows while a simulation runs and appears under its name only when it is whole.
#include <cstdio>
#include <filesystem>
#include <string_view>

namespace drydock::simulator {

// Not committed, it leaves nothing behind. All functions throw core::Error naming the file.
class PartFile {
 public:
  explicit PartFile(const std::filesystem::path& file);
  ~PartFile();
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  void append(std::string_view text);
  // Syncs and renames; nothing can be appended after it.
  void commit();
  // Its name until then.
  const std::filesystem::path& temporary() const { return temporary_; }

 private:
  std::filesystem::path file_, temporary_;
  std::FILE* stream_ = nullptr;
};

}  // namespace drydock::simulator
