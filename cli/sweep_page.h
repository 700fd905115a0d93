#pragma once
// What a sweep answered, as a table, as CSV and as JSON.
#include <string>

#include "configurator/sweep_store.h"
#include "core/json.h"

namespace drydock::cli {

// A line an item, at most 100 columns wide: the lists of the sweep that have one entry are told above it.
std::string sweep_table(const configurator::SweepStore& store);
// One row an item; figures in their 80 % bands.
std::string sweep_csv(const configurator::SweepStore& store);
// docs/schema/sweep.schema.json, without schema and version.
core::Json sweep_answers_json(const configurator::SweepStore& store);

// "15 met, 3 missed, 1 impossible, 1 refused"; those that there are none of are left out.
std::string sweep_counts_text(const core::Json& counts);
core::Json sweep_counts(const configurator::SweepStore& store);  // by status

}  // namespace drydock::cli
