#pragma once
// Measurements as CSV: what `drydock db import` reads and `drydock db export` writes.
#include <cstdint>
#include <filesystem>
#include <functional>

#include "perfdb/database.h"

namespace drydock::perfdb {

inline constexpr const char* kCsvHeader =
    "system,backend,version,gpu,driver,clocks,kernel,date,source,op,latency_us,spread_us,samples";

// Adds the rows of `csv` in one transaction and returns how many. Reads line by line, so size is no limit; `progress`
// is told the rows so far now and then. Throws core::Error naming file, line and column; then nothing is added.
int64_t import_csv(Database& database, const std::filesystem::path& csv, const std::function<void(int64_t)>& progress);

// Writes all measurements, ordered, so that equal databases give equal files. Returns how many rows.
int64_t export_csv(const Database& database, const std::filesystem::path& csv);

}  // namespace drydock::perfdb
