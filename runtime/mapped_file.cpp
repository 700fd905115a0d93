#include "runtime/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace drydock::runtime {
namespace {

struct OpenedFile {
  explicit OpenedFile(const std::filesystem::path& file) : descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~OpenedFile() {
    if (descriptor >= 0) ::close(descriptor);
  }
  OpenedFile(const OpenedFile&) = delete;
  OpenedFile& operator=(const OpenedFile&) = delete;
  int descriptor;
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& file) {
  const auto fail = [&](const char* what) { throw core::Error(file.string() + ": " + what); };
  const OpenedFile opened(file);
  struct stat status {};
  if (opened.descriptor < 0 || ::fstat(opened.descriptor, &status) != 0) fail(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail("is not a file");
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;
  void* const data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, opened.descriptor, 0);
  if (data == MAP_FAILED) fail(std::strerror(errno));
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace drydock::runtime
