#include "perfdb/csv_exchange.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "core/csv.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::perfdb {
namespace {

constexpr size_t kChunkBytes = 4 << 20;
constexpr const char* kOriginColumns[] = {"system", "backend", "version", "gpu", "driver", "clocks", "kernel", "date", "source"};

// The columns of one file; text is taken chunk by chunk, each a small CSV with the header put before it.
class Reader {
 public:
  explicit Reader(const core::Csv& csv) : csv_(csv) {
    csv.require({"system", "backend", "op", "latency_us"});
    for (size_t i = 0; i < std::size(kOriginColumns); ++i) origin_[i] = csv.find(kOriginColumns[i]);
    op_ = csv.column("op");
    latency_ = csv.column("latency_us");
    spread_ = csv.find("spread_us");
    samples_ = csv.find("samples");
  }

  Measurement row(size_t i, int64_t line_offset) const {
    try {
      Measurement m;
      m.op = core::parse_op_key(csv_.cell(i, op_));
      std::string* fields[] = {&m.origin.system, &m.origin.backend, &m.origin.version, &m.origin.gpu, &m.origin.driver,
                               &m.origin.clocks, &m.origin.kernel, &m.origin.date, &m.origin.source};
      for (size_t c = 0; c < std::size(kOriginColumns); ++c)
        if (origin_[c]) *fields[c] = csv_.cell(i, *origin_[c]);
      if (m.origin.system.empty() || m.origin.backend.empty()) throw core::Error("system and backend must not be empty");
      const auto latency = csv_.number(i, latency_, 1e-6, 1e9);
      if (!latency) throw core::Error("column 'latency_us' is empty");
      m.latency_us = *latency;
      if (spread_) m.spread_us = csv_.number(i, *spread_, 0, 1e9).value_or(0);
      if (samples_) m.samples = csv_.integer(i, *samples_, 0, int64_t{1} << 40).value_or(0);
      return m;
    } catch (const core::Error& error) {
      throw core::Error(csv_.origin() + ": line " + std::to_string(csv_.line(i) + line_offset) + ": " + error.what());
    }
  }

 private:
  const core::Csv& csv_;
  std::optional<size_t> origin_[std::size(kOriginColumns)], spread_, samples_;
  size_t op_ = 0, latency_ = 0;
};

std::string shortest(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

// Calls `take(text of whole lines, lines before it)`; rows of this format have no line breaks inside quotes.
void for_each_chunk(std::ifstream& in, const std::function<void(std::string_view, int64_t)>& take) {
  std::string pending, block(kChunkBytes, '\0');
  int64_t line = 1;
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())), in.gcount() > 0) {
    pending.append(block.data(), static_cast<size_t>(in.gcount()));
    const size_t end = pending.rfind('\n');
    if (end == std::string::npos) {
      if (pending.size() > 4 * kChunkBytes) throw core::Error("line " + std::to_string(line + 1) + " is over 16 MiB");
      continue;
    }
    take(std::string_view(pending).substr(0, end + 1), line);
    line += std::count(pending.begin(), pending.begin() + static_cast<long>(end) + 1, '\n');
    pending.erase(0, end + 1);
  }
  if (!pending.empty()) take(pending, line);
}

}  // namespace

int64_t import_csv(Database& database, const std::filesystem::path& file, const std::function<void(int64_t)>& progress) {
  std::error_code status;
  if (std::filesystem::is_directory(file, status)) throw core::Error(file.string() + ": is a folder; want a CSV file");
  std::ifstream in(file, std::ios::binary);
  if (!in) throw core::Error(file.string() + ": can't be read");
  std::string header;
  std::getline(in, header);
  return database.write([&](const auto& add) {
    int64_t rows = 0;
    core::Csv::parse(header + "\n", file.string()).require({"system", "backend", "op", "latency_us"});
    for_each_chunk(in, [&](std::string_view text, int64_t lines_before) {
      const core::Csv csv = core::Csv::parse(header + "\n" + std::string(text), file.string());
      const Reader reader(csv);
      for (size_t i = 0; i < csv.rows(); ++i) add(reader.row(i, lines_before - 1));
      progress(rows += static_cast<int64_t>(csv.rows()));
    });
  });
}

int64_t export_csv(const Database& database, const std::filesystem::path& file) {
  std::string text = std::string(kCsvHeader) + "\n";
  int64_t rows = 0;
  database.read({}, [&](const Measurement& m) {
    for (const std::string* field : {&m.origin.system, &m.origin.backend, &m.origin.version, &m.origin.gpu, &m.origin.driver, &m.origin.clocks, &m.origin.kernel, &m.origin.date, &m.origin.source})
      (text += core::csv_field(*field)) += ',';
    text += core::csv_field(core::key(m.op)) + ',' + shortest(m.latency_us) + ',' + shortest(m.spread_us) + ',' + std::to_string(m.samples) + '\n';
    ++rows;
  });
  core::write_file(file, text);
  return rows;
}

}  // namespace drydock::perfdb
