#pragma once
// What a comparison of two databases found, for people, for scripts, for CI and for the page of a pull request.
#include <optional>
#include <string>

#include "cli/command.h"
#include "perfdb/diff.h"
#include "simulator/report.h"

namespace drydock::cli {

// One plan under one load, with the kernel times of both databases.
struct EndToEnd {
  std::string plan, load;
  simulator::Summary base, now;
};

struct DiffReport {
  std::string base_file, new_file;
  double threshold = 0;  // share
  perfdb::Diff diff;
  std::optional<EndToEnd> end_to_end;
};

// At most 100 columns.
std::string diff_text(const DiffReport& report);
std::string diff_markdown(const DiffReport& report);
// A testcase for each system as a whole and for each family; a row that stands alone fails its family's.
std::string diff_junit(const DiffReport& report);
// Fields of schema drydock.db.diff, docs/schema/db_diff.schema.json.
core::Json diff_json(const DiffReport& report);

// "gpu 'NVIDIA H200' against 'NVIDIA H100' in 12 rows of h200_sxm; driver ..."
std::string differences_text(const perfdb::Diff& diff);

}  // namespace drydock::cli
