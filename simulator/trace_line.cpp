#include "simulator/trace_line.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "simulator/lengths.h"

namespace drydock::simulator {
namespace {

using core::Error;

constexpr int64_t kTicksPerSecond = 10'000'000;
constexpr size_t kMostColumns = 256;
constexpr double kMostSeconds = 1e11;  // so that ticks fit

struct CsvNames {
  std::string_view format;
  std::array<std::string_view, 3> columns;
};
constexpr CsvNames kAzure = {"azure", {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}};
constexpr CsvNames kBurstGpt = {"burstgpt", {"Timestamp", "Request tokens", "Response tokens"}};

const CsvNames& names_of(TraceFormat format) { return format == TraceFormat::azure ? kAzure : kBurstGpt; }

// Fit to be quoted in an error.
std::string shown(std::string_view text) {
  std::string out(text.substr(0, 40));
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return c < 32 || c > 126; }, '?');
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The field that `line` starts with, cut off with its comma; quotes around it go. `more`: there was a comma.
std::string_view cut_field(std::string_view& line, bool& more) {
  size_t from = 0;
  if (line.starts_with('"')) from = std::min(line.find('"', 1), line.size());  // commas before that do not count
  const size_t end = std::min(line.find(',', from), line.size());
  std::string_view field = line.substr(0, end);
  more = end < line.size();
  line.remove_prefix(more ? end + 1 : end);
  if (field.size() >= 2 && field.front() == '"' && field.back() == '"') field = field.substr(1, field.size() - 2);
  return trimmed(field);
}

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> fields;
  bool more = true;
  while (more && fields.size() < kMostColumns) fields.push_back(cut_field(line, more));
  return fields;
}

Error wrong(std::string_view field, const std::string& want, std::string_view found) {
  return Error("field '" + std::string(field) + "': want " + want + ", found '" + shown(found) + "'");
}

int64_t parse_tokens(std::string_view field, std::string_view text) {
  int64_t tokens = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), tokens);
  if (status != std::errc() || end != text.data() + text.size() || tokens < 1 || tokens > kMostTokens)
    throw wrong(field, "a whole number from 1 to " + std::to_string(kMostTokens), text);
  return tokens;
}

int64_t parse_seconds(std::string_view field, std::string_view text) {
  double seconds = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (status != std::errc() || end != text.data() + text.size() || !(seconds >= 0 && seconds <= kMostSeconds))
    throw wrong(field, "seconds from 0 to 1e+11", text);
  return std::llround(seconds * static_cast<double>(kTicksPerSecond));
}

// Digits where the pattern has 0, the pattern's own characters elsewhere.
bool looks_like(std::string_view text, std::string_view pattern) {
  return text.size() == pattern.size() && std::equal(text.begin(), text.end(), pattern.begin(), [](char c, char p) {
           return p == '0' ? c >= '0' && c <= '9' : c == p;
         });
}

int digits(std::string_view text, size_t at, size_t count) {
  int value = 0;
  for (const char c : text.substr(at, count)) value = 10 * value + (c - '0');
  return value;
}

// Ticks of ".9799600"; nullopt: no fraction of 1 to 9 digits. Those below a tick are dropped.
std::optional<int64_t> parse_fraction(std::string_view text) {
  if (text.empty()) return 0;
  const std::string_view places = text.substr(1);
  const bool all_digits = std::all_of(places.begin(), places.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (text[0] != '.' || places.empty() || places.size() > 9 || !all_digits) return std::nullopt;
  int64_t ticks = 0;
  for (size_t i = 0; i < 7; ++i) ticks = 10 * ticks + (i < places.size() ? places[i] - '0' : 0);
  return ticks;
}

// "2023-11-16 18:17:03.9799600"; the 2024 Azure traces add "+00:00". nullopt: not that, or no such date.
std::optional<int64_t> parse_date(std::string_view text) {
  constexpr std::string_view kPattern = "0000-00-00 00:00:00";
  if (text.ends_with("+00:00")) text.remove_suffix(6);
  if (!looks_like(text.substr(0, kPattern.size()), kPattern)) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(digits(text, 0, 4)),
                                         std::chrono::month(static_cast<unsigned>(digits(text, 5, 2))),
                                         std::chrono::day(static_cast<unsigned>(digits(text, 8, 2)))};
  const int hour = digits(text, 11, 2), minute = digits(text, 14, 2), second = digits(text, 17, 2);
  const auto fraction = parse_fraction(text.substr(kPattern.size()));
  if (!date.ok() || hour > 23 || minute > 59 || second > 59 || !fraction) return std::nullopt;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return (((days * 24 + hour) * 60 + minute) * 60 + second) * kTicksPerSecond + *fraction;
}

uint64_t parse_hash(const core::Json& id) {
  if (id.is_number_unsigned()) return id.get<uint64_t>();
  throw wrong("hash_ids", "whole numbers from 0", id.dump(-1, ' ', true, core::Json::error_handler_t::replace));
}

void parse_hashes(const core::Fields& fields, TraceRecord& record) {
  record.hashes.clear();
  if (!fields.has("hash_ids")) return;
  for (const core::Json& id : fields.array("hash_ids")) record.hashes.push_back(parse_hash(id));
  const auto blocks = static_cast<size_t>((record.prompt_tokens + kMooncakeBlockTokens - 1) / kMooncakeBlockTokens);
  if (record.hashes.size() > blocks)
    throw wrong("hash_ids", "at most " + std::to_string(blocks) + ", one per 512 of the prompt's tokens",
                std::to_string(record.hashes.size()));
}

void parse_fields(const core::Fields& fields, TraceRecord& record) {
  const double ms = fields.number("timestamp", 0, 1e3 * kMostSeconds);
  record.ticks = std::llround(ms * 1e3 * kTicksPerUs);
  const core::Json& time = fields.require("timestamp");
  record.time = time.is_number_unsigned() ? std::to_string(time.get<uint64_t>()) : time.dump();  // dump() is slow
  record.prompt_tokens = fields.integer("input_length", 1, kMostTokens);
  record.output_tokens = fields.integer("output_length", 1, kMostTokens);
  parse_hashes(fields, record);
}

// Without the origin, which is empty here, and the line within the line.
void parse_json_line(std::string_view line, TraceRecord& record) {
  try {
    const core::Json json = core::parse_json(line, "");
    parse_fields(core::Fields(json, ""), record);
  } catch (const Error& error) {
    std::string_view reason = error.what();
    for (const std::string_view prefix : {": ", "line 1: "})
      if (reason.starts_with(prefix)) reason.remove_prefix(prefix.size());
    throw Error(std::string(reason));
  }
}

bool has_columns(const std::vector<std::string_view>& columns, const CsvNames& names) {
  return std::all_of(names.columns.begin(), names.columns.end(), [&](std::string_view name) {
    return std::find(columns.begin(), columns.end(), name) != columns.end();
  });
}

TraceFormat guess(std::string_view first) {
  if (trimmed(first).starts_with('{')) return TraceFormat::mooncake;
  const auto columns = split(first);
  if (has_columns(columns, kAzure)) return TraceFormat::azure;
  if (has_columns(columns, kBurstGpt)) return TraceFormat::burstgpt;
  throw Error(
      "not a known trace; want a Mooncake JSON object, or a CSV header with TIMESTAMP,ContextTokens,"
      "GeneratedTokens (Azure) or Timestamp,Request tokens,Response tokens (BurstGPT)");
}

}  // namespace

TraceFormat parse_trace_format(std::string_view name, std::string_view origin) {
  if (name == "mooncake") return TraceFormat::mooncake;
  if (name == kAzure.format) return TraceFormat::azure;
  if (name == kBurstGpt.format) return TraceFormat::burstgpt;
  throw Error(std::string(origin) + ": want mooncake, azure or burstgpt, found '" + shown(name) + "'" +
              core::suggestion(name, {"mooncake", "azure", "burstgpt"}));
}

TraceLineParser::TraceLineParser(std::optional<TraceFormat> format, std::string_view first)
    : format_(format ? *format : guess(first)) {
  if (has_header()) read_header(first);
}

void TraceLineParser::read_header(std::string_view header) {
  const auto columns = split(header);
  const CsvNames& names = names_of(format_);
  columns_ = columns.size();
  for (size_t i = 0; i < names.columns.size(); ++i) {
    const auto found = std::find(columns.begin(), columns.end(), names.columns[i]);
    if (found == columns.end())
      throw Error("no column '" + std::string(names.columns[i]) + "' in the header; a trace of format " +
                  std::string(names.format) + " has one");
    at_[i] = static_cast<size_t>(found - columns.begin());
  }
}

void TraceLineParser::parse(std::string_view line, TraceRecord& record) const {
  if (format_ == TraceFormat::mooncake)
    parse_json_line(line, record);
  else
    parse_csv(line, record);
}

void TraceLineParser::parse_csv(std::string_view line, TraceRecord& record) const {
  std::array<std::string_view, 3> values;
  size_t fields = 0;
  for (bool more = true; more; ++fields) {
    const std::string_view field = cut_field(line, more);
    for (size_t i = 0; i < values.size(); ++i)
      if (at_[i] == fields) values[i] = field;
  }
  if (fields != columns_) throw Error(std::to_string(fields) + " fields; the header has " + std::to_string(columns_));
  const CsvNames& names = names_of(format_);
  record.hashes.clear();
  record.time = values[0];
  if (format_ == TraceFormat::burstgpt) {
    record.ticks = parse_seconds(names.columns[0], values[0]);
  } else {
    const auto ticks = parse_date(values[0]);
    if (!ticks) throw wrong(names.columns[0], "a time like 2023-11-16 18:17:03.9799600", values[0]);
    record.ticks = *ticks;
  }
  record.prompt_tokens = parse_tokens(names.columns[1], values[1]);
  record.output_tokens = parse_tokens(names.columns[2], values[2]);
}

}  // namespace drydock::simulator
