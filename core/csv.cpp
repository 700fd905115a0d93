#include "core/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/error.h"
#include "core/file.h"

namespace drydock::core {
namespace {

constexpr size_t kMaxFieldBytes = 64u << 10;
constexpr size_t kMaxColumns = 1024;

// Splits one record off the text; fields may be quoted and then hold commas, quotes and line ends.
class Splitter {
 public:
  Splitter(std::string_view text, std::string_view origin) : text_(text), origin_(origin) {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
  }

  bool done() const { return at_ >= text_.size(); }
  int line() const { return line_; }

  void next(std::vector<std::string>& fields) {
    fields.clear();
    do fields.push_back(field());
    while (take(','));
    if (take('\r') && !done() && text_[at_] != '\n') throw error("a carriage return inside a row");
    if (!done() && !take('\n')) throw error("text after a closing quote");
    ++line_;
  }

 private:
  Error error(const std::string& what) const {
    return Error(std::string(origin_) + ": line " + std::to_string(line_) + ": " + what);
  }

  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string field() {
    if (take('"')) return quoted();
    const size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    std::string value(text_.substr(at_, end - at_));
    at_ = end;
    return bounded(std::move(value));
  }

  std::string quoted() {
    std::string value;
    const int opened = line_;
    for (;;) {
      const size_t end = text_.find('"', at_);
      if (end == std::string_view::npos)
        throw Error(std::string(origin_) + ": line " + std::to_string(opened) + ": a quote is never closed");
      value.append(text_.substr(at_, end - at_));
      line_ += static_cast<int>(
          std::count(text_.begin() + static_cast<long>(at_), text_.begin() + static_cast<long>(end), '\n'));
      at_ = end + 1;
      if (!take('"')) return bounded(std::move(value));
      value += '"';
    }
  }

  std::string bounded(std::string value) const {
    if (value.size() > kMaxFieldBytes) throw error("a field of over 64 KiB");
    if (value.find('\0') != std::string::npos) throw error("a NUL byte");
    return value;
  }

  std::string_view text_, origin_;
  size_t at_ = 0;
  int line_ = 1;
};

void check_header(const std::vector<std::string>& columns, std::string_view origin) {
  if (columns.size() > kMaxColumns) throw Error(std::string(origin) + ": line 1: over 1024 columns");
  if (columns.size() == 1 && columns[0].empty())
    throw Error(std::string(origin) + ": line 1: want a header row of column names");
  for (size_t i = 0; i < columns.size(); ++i)
    if (std::find(columns.begin(), columns.begin() + static_cast<long>(i), columns[i]) !=
        columns.begin() + static_cast<long>(i))
      throw Error(std::string(origin) + ": line 1: column '" + columns[i].substr(0, 80) + "' is there twice");
}

std::string bound_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.12g", value);
  return text;
}

}  // namespace

Csv Csv::parse(std::string_view text, std::string_view origin, size_t max_rows) {
  Csv csv;
  csv.origin_ = origin;
  Splitter splitter(text, origin);
  if (splitter.done()) throw Error(csv.origin_ + ": empty; want a header row of column names");
  splitter.next(csv.columns_);
  check_header(csv.columns_, origin);
  std::vector<std::string> fields;
  while (!splitter.done()) {
    const int line = splitter.line();
    splitter.next(fields);
    if (fields.size() == 1 && fields[0].empty()) continue;  // a blank line
    if (fields.size() != csv.columns_.size())
      throw Error(csv.origin_ + ": line " + std::to_string(line) + ": " + std::to_string(fields.size()) +
                  " fields; the header has " + std::to_string(csv.columns_.size()));
    if (csv.lines_.size() >= max_rows) throw Error(csv.origin_ + ": over " + std::to_string(max_rows) + " rows");
    std::move(fields.begin(), fields.end(), std::back_inserter(csv.cells_));
    csv.lines_.push_back(line);
  }
  return csv;
}

Csv Csv::read(const std::filesystem::path& file) { return parse(read_file(file), file.string()); }

int Csv::line(size_t row) const { return lines_[row]; }

std::optional<size_t> Csv::find(std::string_view column) const {
  const auto found = std::find(columns_.begin(), columns_.end(), column);
  if (found == columns_.end()) return std::nullopt;
  return static_cast<size_t>(found - columns_.begin());
}

size_t Csv::column(std::string_view name) const {
  require({name});
  return *find(name);
}

void Csv::require(std::initializer_list<std::string_view> names) const {
  std::string missing;
  for (const std::string_view name : names)
    if (!find(name)) (missing += missing.empty() ? "" : ", ") += name;
  if (!missing.empty()) throw Error(origin_ + ": line 1: missing column " + missing);
}

std::optional<double> Csv::number(size_t row, size_t column, double least, double most) const {
  const std::string& text = cell(row, column);
  if (text.empty()) return std::nullopt;
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || !std::isfinite(value) ||
      !(value >= least && value <= most))
    throw Error(origin_ + ": line " + std::to_string(line(row)) + ": column '" + columns_[column] +
                "': want a number from " + bound_text(least) + " to " + bound_text(most) + ", found '" +
                text.substr(0, 40) + "'");
  return value;
}

std::optional<int64_t> Csv::integer(size_t row, size_t column, int64_t least, int64_t most) const {
  const auto value = number(row, column, static_cast<double>(least), static_cast<double>(most));
  if (!value) return std::nullopt;
  if (*value != std::floor(*value))
    throw Error(origin_ + ": line " + std::to_string(line(row)) + ": column '" + columns_[column] +
                "': want a whole number, found '" + cell(row, column).substr(0, 40) + "'");
  return static_cast<int64_t>(*value);
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

}  // namespace drydock::core
