#pragma once
// What the page of a recommendation shows, as data.
#include <string>
#include <vector>

#include "configurator/search.h"
#include "core/json.h"

namespace drydock::cli {

// How the question was asked.
struct Asked {
  std::vector<std::string> command;   // the program's arguments, its name first
  std::string out_dir;                // of --out; empty: none
  std::string database, calibration;  // empty: the shipped ones
};

// `words` as one line that a POSIX shell splits back into them.
std::string shell_line(const std::vector<std::string>& words);

// The answer as --json has it (`answer`), and beside it: for each plan of the list and of the front its file, its
// breakdown and the commands to go on with, for the listed ones the distribution of users' times; how changed
// assumptions move them; what the numbers rest on. docs/report.md has the fields.
core::Json report_json(const configurator::Question& question, const configurator::Answer& found,
                       const core::Json& answer, const Asked& asked, configurator::Resources& resources);

}  // namespace drydock::cli
