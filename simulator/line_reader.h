#pragma once
// A file line by line, in memory that does not grow with the file.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace drydock::simulator {

inline constexpr size_t kMostLineBytes = 1u << 20;

class LineReader {
 public:
  // Throws core::Error when `file` is missing, a folder or unreadable.
  explicit LineReader(std::filesystem::path file);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line without its end (LF or CRLF), valid until the next call; nullopt: no more. Of a line over
  // kMostLineBytes only the first bytes, with too_long() true. A byte order mark at the start is dropped.
  std::optional<std::string_view> next();

  int64_t line() const { return line_; }  // number of the last one, from 1
  bool too_long() const { return too_long_; }
  bool ended() const { return ended_; }  // the last one had a line end
  const std::filesystem::path& file() const { return file_; }

 private:
  bool fill();         // false: end of file
  void skip_to_end();  // of a line that was too long

  std::filesystem::path file_;
  int fd_ = -1;
  std::string buffer_;
  size_t start_ = 0;  // of what has not been given out
  int64_t line_ = 0;
  bool too_long_ = false, ended_ = true;
};

}  // namespace drydock::simulator
