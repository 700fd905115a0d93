#include "simulator/line_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace drydock::simulator {
namespace {

constexpr size_t kChunkBytes = 1u << 16;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

core::Error failed(const std::filesystem::path& file) {
  return core::Error(file.string() + ": can't be read: " + std::strerror(errno));
}

}  // namespace

LineReader::LineReader(std::filesystem::path file) : file_(std::move(file)) {
  fd_ = ::open(file_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) throw failed(file_);
  struct stat info {};
  if (::fstat(fd_, &info) == 0 && S_ISDIR(info.st_mode)) {
    ::close(fd_);
    throw core::Error(file_.string() + ": is a folder; want a file");
  }
}

LineReader::~LineReader() { ::close(fd_); }

bool LineReader::fill() {
  buffer_.erase(0, start_);
  start_ = 0;
  const size_t held = buffer_.size();
  buffer_.resize(held + kChunkBytes);
  ssize_t n = 0;
  do n = ::read(fd_, buffer_.data() + held, kChunkBytes);
  while (n < 0 && errno == EINTR);
  if (n < 0) throw failed(file_);
  buffer_.resize(held + static_cast<size_t>(n));
  return n > 0;
}

void LineReader::skip_to_end() {
  too_long_ = false;
  do {
    const size_t at = buffer_.find('\n', start_);
    start_ = at == std::string::npos ? buffer_.size() : at + 1;
    if (at != std::string::npos) return;
  } while (fill());
}

std::optional<std::string_view> LineReader::next() {
  if (too_long_) skip_to_end();
  size_t searched = start_;
  size_t end = buffer_.find('\n', searched);
  while (end == std::string::npos && buffer_.size() - start_ <= kMostLineBytes) {
    searched = buffer_.size() - start_;
    if (!fill()) break;
    end = buffer_.find('\n', searched);
  }
  ended_ = end != std::string::npos;
  if (!ended_) end = buffer_.size();
  if (!ended_ && start_ == end) return std::nullopt;
  std::string_view line(buffer_.data() + start_, end - start_);
  too_long_ = line.size() > kMostLineBytes;
  // The end of a line that is too long is left to the next call, which skips to it.
  start_ = end + (ended_ && !too_long_ ? 1 : 0);
  if (line_++ == 0 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line.substr(0, kMostLineBytes);
}

}  // namespace drydock::simulator
