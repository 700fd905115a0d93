#include "cli/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace drydock::cli {
namespace {

constexpr int kJsonVersion = 1;

// Cells may hold multi-byte characters; what counts is how many are shown.
size_t shown_width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
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
  return fmt::format("{:.2f}", value);
}

std::string human_bytes(double bytes) {
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  return bytes >= kGiB / 10 ? fmt::format("{:.1f} GiB", bytes / kGiB) : fmt::format("{:.1f} MiB", bytes / kGiB * 1024);
}

std::string percent(double share) { return fmt::format("{:.0f}%", share * 100); }

double parse_positive(const std::string& text, std::string_view flag, double most) {
  double value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size() || !(value > 0 && value <= most))
    throw bad(flag, text, "a number above 0 and at most " + fmt::format("{}", most));
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

std::string Table::text(std::string_view indent) const {
  std::vector<size_t> widths(rows_.front().size());
  for (const auto& row : rows_)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], shown_width(row[c]));
  std::string out;
  for (const auto& row : rows_) {
    std::string line(indent);
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string pad(widths[c] - shown_width(row[c]), ' ');
      const bool to_right = c < right_.size() && right_[c] == 'r';
      line += (c ? "  " : "") + (to_right ? pad + row[c] : row[c] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

}  // namespace drydock::cli
