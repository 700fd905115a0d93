#include "cli/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "cli/terminal.h"
#include "core/error.h"

namespace drydock::cli {
namespace {

constexpr int kJsonVersion = 1;

// Cells may hold multi-byte characters; what counts is how many are shown.
size_t shown_width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Where a cell may go on in a further line: after " + " where it has any, else at spaces.
std::vector<std::string> pieces_of(const std::string& text) {
  const std::string_view at = text.find(" + ") != std::string::npos ? " + " : " ";
  std::vector<std::string> out;
  size_t from = 0;
  for (size_t to; (to = text.find(at, from)) != std::string::npos; from = to + at.size())
    out.push_back(text.substr(from, to - from + at.size() - 1));
  out.push_back(text.substr(from));
  return out;
}

// `text` in lines of at most `width` characters, longer only where a piece is.
std::vector<std::string> wrapped(const std::string& text, size_t width) {
  if (shown_width(text) <= width) return {text};
  std::vector<std::string> out;
  for (const std::string& piece : pieces_of(text))
    if (!out.empty() && shown_width(out.back()) + 1 + shown_width(piece) <= width)
      out.back() += " " + piece;
    else
      out.push_back(piece);
  return out;
}

// Takes from the widest column of text, again and again, until the table is at most `most` wide or no cell can be
// broken any further.
void narrow(std::vector<size_t>& widths, const std::vector<std::vector<std::string>>& rows, const std::string& right,
            size_t most) {
  size_t total = 2 * (widths.size() - 1);
  for (const size_t width : widths) total += width;
  if (total <= most) return;
  std::vector<size_t> least(widths.size(), 0);
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c)
      for (const std::string& piece : pieces_of(row[c])) least[c] = std::max(least[c], shown_width(piece));
  while (total > most) {
    size_t widest = widths.size();
    for (size_t c = 0; c < widths.size(); ++c) {
      if (c < right.size() && right[c] == 'r') continue;
      if (widths[c] > least[c] && (widest == widths.size() || widths[c] > widths[widest])) widest = c;
    }
    if (widest == widths.size()) return;
    --widths[widest], --total;
  }
}

core::Error bad(std::string_view flag, const std::string& text, const std::string& want) {
  return core::Error(std::string(flag) + " '" + text.substr(0, 60) + "': want " + want);
}

}  // namespace

void add_common(CLI::App& command, Context& context) {
  command.add_option("--db", context.database, "performance database (default: the shipped one)")->type_name("FILE");
  command.add_option("--calibration", context.calibration, "backend figures (default: the shipped ones)")
      ->type_name("FILE");
  command.add_flag("--json", context.json, "one JSON object on stdout");
}

void print_json(std::string_view schema, const core::Json& fields) {
  core::Json out = {{"schema", schema}, {"version", kJsonVersion}};
  out.update(fields);
  const std::string text = out.dump(2, ' ', false, core::Json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
}

core::Json figure_json(const core::Figure& f) { return {{"value", f.value}, {"low", f.low}, {"high", f.high}}; }

std::string human(double value) {
  const double size = std::abs(value);
  if (size >= 99.5) return fmt::format("{:.0f}", value);
  if (size >= 9.95) return fmt::format("{:.1f}", value);
  if (size > 0 && size < 0.00995) return fmt::format("{:.1g}", value);
  return fmt::format("{:.2f}", value);
}

std::string human_bytes(double bytes) {
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  return bytes >= kGiB / 10 ? fmt::format("{:.1f} GiB", bytes / kGiB) : fmt::format("{:.1f} MiB", bytes / kGiB * 1024);
}

std::string percent(double share) { return fmt::format("{:.0f}%", share * 100); }

double parse_positive(const std::string& text, std::string_view flag, double most, double least) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || !(value > 0 && value >= least && value <= most))
    throw bad(flag, text,
              least > 0 ? fmt::format("a number from {} to {}", least, most)
                        : fmt::format("a number above 0 and at most {}", most));
  return value;
}

double parse_share(const std::string& text, std::string_view flag) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || !(value >= 0 && value < 1))
    throw bad(flag, text, "a share from 0 up to, not including, 1");
  return value;
}

int64_t parse_count(const std::string& text, std::string_view flag, int64_t most) {
  int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || value < 1 || value > most)
    throw bad(flag, text, "a whole number from 1 to " + std::to_string(most));
  return value;
}

double parse_ms(const std::string& text, std::string_view flag) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const double factor = unit.empty() || unit == "ms" ? 1
                        : unit == "s"                ? 1000
                        : unit == "us"               ? 1e-3
                        : unit == "min"              ? 60'000
                                                     : 0;
  constexpr double kMostMs = 1e9;
  if (status != std::errc{} || factor == 0 || !(value > 0 && value * factor <= kMostMs))
    throw bad(flag, text, "a time above 0 such as 20, 20ms or 1.5s");
  return value * factor;
}

Table::Table(std::vector<std::string> header, std::string right) : rows_{std::move(header)}, right_(std::move(right)) {}

void Table::row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

void Table::style(Style style) { styles_[rows_.size() - 1] = style; }

std::string Table::line(const std::vector<std::string>& cells, const std::vector<size_t>& widths) const {
  std::string out;
  for (size_t c = 0; c < cells.size(); ++c) {
    const size_t shown = shown_width(cells[c]);
    const std::string pad(widths[c] > shown ? widths[c] - shown : 0, ' ');
    const bool to_right = c < right_.size() && right_[c] == 'r';
    out += (c ? "  " : "") + (to_right ? pad + cells[c] : cells[c] + pad);
  }
  return out.substr(0, out.find_last_not_of(' ') + 1);
}

std::string Table::text(std::string_view indent, size_t most) const {
  std::vector<size_t> widths(rows_.front().size());
  for (const auto& row : rows_)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], shown_width(row[c]));
  narrow(widths, rows_, right_, most - std::min(most, indent.size()));
  std::string out;
  for (size_t i = 0; i < rows_.size(); ++i) {
    std::vector<std::vector<std::string>> parts;  // of each cell
    size_t lines = 1;
    for (size_t c = 0; c < rows_[i].size(); ++c) {
      parts.push_back(wrapped(rows_[i][c], widths[c]));
      lines = std::max(lines, parts.back().size());
    }
    for (size_t l = 0; l < lines; ++l) {
      std::vector<std::string> cells;
      for (const auto& part : parts) cells.push_back(l < part.size() ? part[l] : "");
      const std::string text = line(cells, widths);
      const auto style = styles_.find(i);
      const bool plain = style == styles_.end() && i > 0;
      out += std::string(indent) + (plain ? text : styled(i == 0 ? Style::strong : style->second, text)) + "\n";
    }
  }
  return out;
}

}  // namespace drydock::cli
