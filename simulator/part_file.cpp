#include "simulator/part_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace drydock::simulator {
namespace {

core::Error not_written(const std::filesystem::path& file) {
  return core::Error(file.string() + ": can't be written: " + std::strerror(errno));
}

}  // namespace

PartFile::PartFile(const std::filesystem::path& file)
    : file_(file), temporary_(file.string() + ".tmp" + std::to_string(::getpid())) {
  const int fd = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) throw not_written(file_);
  stream_ = ::fdopen(fd, "w");
}

PartFile::~PartFile() {
  if (!stream_) return;
  std::fclose(stream_);
  ::unlink(temporary_.c_str());
}

void PartFile::append(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stream_) != text.size()) throw not_written(file_);
}

void PartFile::commit() {
  if (std::fflush(stream_) != 0 || ::fsync(::fileno(stream_)) != 0 || ::rename(temporary_.c_str(), file_.c_str()) != 0)
    throw not_written(file_);
  std::fclose(stream_);
  stream_ = nullptr;
}

}  // namespace drydock::simulator
