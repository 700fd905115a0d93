#pragma once
// A measured deployment as a row of points: what points.h reads, written.
#include <filesystem>
#include <string>

#include "models/plan.h"

namespace drydock::configurator {

struct PointMeasurement {
  double ttft_ms = 0, tpot_ms = 0;          // means
  double ttft_p95_ms = 0, tpot_p95_ms = 0;  // read by nobody yet
  double requests_per_s = 0;
  double in_flight = 0;        // requests, where the workload has no concurrency
  bool closed_uniform = true;  // a closed loop with lengths uniform around the workload's: what columns can say
  std::string load;            // for people
};

// Names of the columns, and a row of them, each with its line end. A row that can't say what was measured (open loops,
// traces, other lengths) gives its mean lengths and requests in flight and has spec_doubt = 1.
std::string point_columns();
// Throws core::Error on a plan whose pools are of several systems, which no columns can say.
std::string point_row(const models::Plan& plan, const PointMeasurement& measured);

// Adds the row to a file of such rows, or begins one. Throws core::Error naming the file when its columns are others.
void append_point(const std::filesystem::path& file, const std::string& row);

}  // namespace drydock::configurator
