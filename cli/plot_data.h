#pragma once
// CSV files of results, made small enough for a page.
#include "core/csv.h"
#include "core/json.h"

namespace drydock::cli {

// What a page shows of `csv`, which is told by its columns to be one of: requests.csv or timeline.csv of `simulate
// --out`, or predictions beside measurements (`validate --out`, `estimate --points`). Distributions and errors are over
// all rows; dots and samples are thinned evenly. docs/report.md has the fields. Throws core::Error naming file, line
// and column, or the columns that each kind has when it is none of them.
core::Json plot_json(const core::Csv& csv);

}  // namespace drydock::cli
