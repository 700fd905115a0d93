#include "core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace drydock::core {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Error failed(const std::filesystem::path& file, const std::string& what) {
  return Error(file.string() + ": " + what + ": " + std::strerror(errno));
}

bool write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    content.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace

std::string read_file(const std::filesystem::path& file, size_t most_bytes) {
  const Descriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (fd.get() < 0 || ::fstat(fd.get(), &info) != 0) throw failed(file, "can't be read");
  if (S_ISDIR(info.st_mode)) throw Error(file.string() + ": is a folder; want a file");
  std::string content;
  char buffer[1 << 16];
  for (ssize_t n; (n = ::read(fd.get(), buffer, sizeof buffer)) != 0;) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw failed(file, "can't be read");
    content.append(buffer, static_cast<size_t>(n));
    if (content.size() > most_bytes)
      throw Error(file.string() + ": larger than " + std::to_string(most_bytes) + " bytes");
  }
  return content;
}

bool is_device(const std::filesystem::path& file) {
  struct stat info {};
  return ::stat(file.c_str(), &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

std::filesystem::path behind_links(const std::filesystem::path& file) {
  std::error_code status;
  if (!std::filesystem::is_symlink(file, status)) return file;
  std::filesystem::path behind = std::filesystem::canonical(file, status);
  return status ? file : behind;
}

void write_file(const std::filesystem::path& file, std::string_view content) {
  if (is_device(file)) {
    const Descriptor device(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
    if (device.get() < 0 || !write_all(device.get(), content)) throw failed(file, "can't be written");
    return;
  }
  const std::filesystem::path target = behind_links(file);
  const std::filesystem::path temporary = target.string() + ".tmp" + std::to_string(::getpid());
  const Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (fd.get() < 0) throw failed(file, "can't be written");
  if (!write_all(fd.get(), content) || ::fsync(fd.get()) != 0 || ::rename(temporary.c_str(), target.c_str()) != 0) {
    const Error error = failed(file, "can't be written");
    ::unlink(temporary.c_str());
    throw error;
  }
}

void make_output_dir(const std::filesystem::path& dir) {
  std::error_code status;
  std::filesystem::create_directories(dir, status);
  if (!std::filesystem::is_directory(dir)) throw Error(dir.string() + ": can't be made a folder for output");
  const std::filesystem::path probe = dir / (".drydock-probe" + std::to_string(::getpid()));
  const Descriptor fd(::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd.get() < 0) throw failed(dir, "can't be written to");
  ::unlink(probe.c_str());
}

}  // namespace drydock::core
