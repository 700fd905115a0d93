#pragma once
// CSV as people export it: header row, commas, quotes, BOM, CRLF, any column order. RFC 4180.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::core {

class Csv {
 public:
  // Throws core::Error naming `origin` and line: no header, a repeated column, a row with another number of fields, an
  // open quote, a field over 64 KiB, more than `max_rows` rows.
  static Csv parse(std::string_view text, std::string_view origin, size_t max_rows = 50'000'000);
  static Csv read(const std::filesystem::path& file);

  const std::vector<std::string>& columns() const { return columns_; }
  size_t rows() const { return cells_.size() / columns_.size(); }
  int line(size_t row) const;  // of the file, the header being line 1

  std::optional<size_t> find(std::string_view column) const;
  // Index of a column that must be there; throws core::Error listing what is missing.
  size_t column(std::string_view name) const;
  void require(std::initializer_list<std::string_view> names) const;

  const std::string& cell(size_t row, size_t column) const { return cells_[row * columns_.size() + column]; }
  // Throw core::Error naming origin, line and column on anything but a finite number in range. Empty: nullopt.
  std::optional<double> number(size_t row, size_t column, double least, double most) const;
  std::optional<int64_t> integer(size_t row, size_t column, int64_t least, int64_t most) const;

  const std::string& origin() const { return origin_; }

 private:
  std::string origin_;
  std::vector<std::string> columns_, cells_;
  std::vector<int> lines_;
};

// One field, quoted only when it must be.
std::string csv_field(std::string_view text);

}  // namespace drydock::core
