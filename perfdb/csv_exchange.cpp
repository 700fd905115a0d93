#include "perfdb/csv_exchange.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "core/csv.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::perfdb {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = 1 << 20;
constexpr size_t kMostLineBytes = 1 << 20;
constexpr size_t kMostOriginBytes = 1024;
constexpr const char* kOriginColumns[] = {"system", "backend", "version", "gpu",   "driver",
                                          "clocks", "kernel",  "date",    "source"};
constexpr std::string Origin::*kOriginFields[] = {&Origin::system, &Origin::backend, &Origin::version,
                                                  &Origin::gpu,    &Origin::driver,  &Origin::clocks,
                                                  &Origin::kernel, &Origin::date,    &Origin::source};

// The measurements of one piece of the file.
class RowReader {
 public:
  explicit RowReader(const core::Csv& csv) : csv_(csv) {
    csv.require({"system", "backend", "op", "latency_us"});
    for (size_t i = 0; i < std::size(kOriginColumns); ++i) origin_[i] = csv.find(kOriginColumns[i]);
    op_ = csv.column("op");
    latency_ = csv.column("latency_us");
    spread_ = csv.find("spread_us");
    samples_ = csv.find("samples");
  }

  Measurement row(size_t i) const {
    Measurement m;
    m.op = op(i);
    for (size_t c = 0; c < std::size(kOriginColumns); ++c)
      if (origin_[c]) m.origin.*kOriginFields[c] = line_of_text(i, *origin_[c]);
    if (m.origin.system.empty() || m.origin.backend.empty()) throw error(i, "system and backend must not be empty");
    const auto latency = csv_.number(i, latency_, 1e-6, 999'999'999);
    if (!latency) throw error(i, "column 'latency_us' is empty");
    m.latency_us = *latency;
    if (spread_) m.spread_us = csv_.number(i, *spread_, 0, 999'999'999).value_or(0);
    if (samples_) m.samples = csv_.integer(i, *samples_, 0, int64_t{1} << 40).value_or(0);
    return m;
  }

 private:
  core::Op op(size_t i) const {
    try {
      return core::parse_op_key(csv_.cell(i, op_));
    } catch (const core::Error& reason) {
      throw error(i, std::string("column 'op': ") + reason.what());
    }
  }

  const std::string& line_of_text(size_t i, size_t column) const {
    const std::string& text = csv_.cell(i, column);
    const auto is_control = [](unsigned char c) { return c < 32 || c == 127; };
    if (text.size() > kMostOriginBytes || std::any_of(text.begin(), text.end(), is_control))
      throw error(i, "column '" + csv_.columns()[column] + "' must be under 1 KiB and without control characters");
    return text;
  }

  core::Error error(size_t i, const std::string& what) const {
    return core::Error(csv_.origin() + ": line " + std::to_string(csv_.line(i)) + ": " + what);
  }

  const core::Csv& csv_;
  std::optional<size_t> origin_[std::size(kOriginColumns)], spread_, samples_;
  size_t op_ = 0, latency_ = 0;
};

std::vector<Measurement> parse(const std::string& header, int64_t blank_lines, std::string_view text,
                               const fs::path& file) {
  std::string piece = header + "\n" + std::string(static_cast<size_t>(blank_lines), '\n');
  piece += text;
  const core::Csv csv = core::Csv::parse(piece, file.string());
  const RowReader reader(csv);
  std::vector<Measurement> rows;
  rows.reserve(csv.rows());
  for (size_t i = 0; i < csv.rows(); ++i) rows.push_back(reader.row(i));
  return rows;
}

// A piece that doesn't parse is read once more below as many blank lines as came before it, so that the error names the
// line of the file.
std::vector<Measurement> parse_piece(const std::string& header, int64_t lines_before, std::string_view text,
                                     const fs::path& file) {
  try {
    return parse(header, 0, text, file);
  } catch (const core::Error&) {
    return parse(header, lines_before, text, file);
  }
}

std::string read_header(std::ifstream& in, const fs::path& file) {
  std::string header;
  for (char c = 0; in.get(c) && c != '\n'; header += c)
    if (header.size() > kMostLineBytes)
      throw core::Error(file.string() + ": line 1 is over 1 MiB; want a CSV of measurements");
  return header;
}

// Calls `take(whole lines, how many came before them)`; the header is not among either. No row spans lines.
void for_each_piece(std::ifstream& in, const fs::path& file,
                    const std::function<void(std::string_view, int64_t)>& take) {
  std::string pending, block(kChunkBytes, '\0');
  int64_t lines = 0;
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())), in.gcount() > 0) {
    pending.append(block.data(), static_cast<size_t>(in.gcount()));
    const size_t size = pending.rfind('\n') + 1;  // 0: no line end yet
    if (size > 0) take(std::string_view(pending).substr(0, size), lines);
    lines += std::count(pending.begin(), pending.begin() + static_cast<long>(size), '\n');
    pending.erase(0, size);
    if (pending.size() > kMostLineBytes)
      throw core::Error(file.string() + ": line " + std::to_string(lines + 2) + " is over 1 MiB");
  }
  if (in.bad()) throw core::Error(file.string() + ": can't be read to its end");
  if (!pending.empty()) take(pending, lines);
}

std::string shortest(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

std::string line_of(const Measurement& m) {
  std::string line;
  for (const auto field : kOriginFields) (line += core::csv_field(m.origin.*field)) += ',';
  line += core::csv_field(core::key(m.op)) + ',' + shortest(m.latency_us) + ',' + shortest(m.spread_us) + ',';
  return line + std::to_string(m.samples) + '\n';
}

// A file written under another name until it is whole.
class Partial {
 public:
  explicit Partial(const fs::path& file)
      : file_(core::behind_links(file)), partial_(file_.string() + ".partial"), out_(partial_, std::ios::binary) {
    if (!out_) throw core::Error(file.string() + ": can't be written");
  }
  ~Partial() {
    std::error_code status;
    if (!whole_) fs::remove(partial_, status);
  }
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;

  void add(std::string_view text) { out_ << text; }
  void finish() {
    out_.close();
    std::error_code status;
    if (out_) fs::rename(partial_, file_, status);
    if (!out_ || status) throw core::Error(file_.string() + ": can't be written");
    whole_ = true;
  }

 private:
  fs::path file_, partial_;
  std::ofstream out_;
  bool whole_ = false;
};

}  // namespace

int64_t import_csv(Database& database, const fs::path& file, const std::function<void(int64_t)>& progress) {
  std::error_code status;
  if (fs::is_directory(file, status)) throw core::Error(file.string() + ": is a folder; want a CSV file");
  std::ifstream in(file, std::ios::binary);
  if (!in) throw core::Error(file.string() + ": can't be read");
  const std::string header = read_header(in, file);
  parse(header, 0, "", file);  // a file of a header alone is checked too
  return database.write([&](const auto& add) {
    int64_t rows = 0;
    for_each_piece(in, file, [&](std::string_view text, int64_t lines_before) {
      const auto measurements = parse_piece(header, lines_before, text, file);
      for (const Measurement& m : measurements) add(m);
      progress(rows += static_cast<int64_t>(measurements.size()));
    });
  });
}

int64_t export_csv(const Database& database, const fs::path& file) {
  std::error_code status;
  if (fs::is_directory(file, status)) throw core::Error(file.string() + ": is a folder; want a CSV file to write");
  if (core::is_device(file)) throw core::Error(file.string() + ": is no regular file; want a CSV file to write");
  Partial out(file);
  out.add(std::string(kCsvHeader) + "\n");
  int64_t rows = 0;
  database.read({}, [&](const Measurement& m) {
    out.add(line_of(m));
    ++rows;
  });
  out.finish();
  return rows;
}

}  // namespace drydock::perfdb
