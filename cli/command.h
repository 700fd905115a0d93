#pragma once
// What every subcommand shares: its options' home, how results and errors leave the program.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/estimate.h"
#include "core/json.h"
#include "models/plan.h"

// CLI11 is slow to compile: only the files that add options include it.
namespace CLI {
class App;
}

namespace drydock::cli {

inline constexpr int kOk = 0, kBadInput = 2, kNothingMeets = 3;

// Options that all subcommands have, and the exit code that the one that ran leaves.
struct Context {
  std::string database;     // --db; empty: the shipped one
  std::string calibration;  // --calibration; empty: the shipped one
  bool json = false;
  std::vector<std::string> arguments;  // of the program, its name first
  int exit_code = kOk;
};

// Each adds one subcommand with its options and its action.
void add_recommend(CLI::App& app, Context& context);
void add_size(CLI::App& app, Context& context);
void add_estimate(CLI::App& app, Context& context);
void add_simulate(CLI::App& app, Context& context);
void add_serve(CLI::App& app, Context& context);
void add_rank(CLI::App& app, Context& context);
void add_compare(CLI::App& app, Context& context);
void add_experts(CLI::App& app, Context& context);
void add_calibrate(CLI::App& app, Context& context);
void add_validate(CLI::App& app, Context& context);
void add_models(CLI::App& app, Context& context);
void add_systems(CLI::App& app, Context& context);
void add_support(CLI::App& app, Context& context);
void add_db(CLI::App& app, Context& context);
void add_profile(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_generate(CLI::App& app, Context& context);
void add_fleet(CLI::App& app, Context& context);
void add_sweep(CLI::App& app, Context& context);
void add_plot(CLI::App& app, Context& context);

// --db, --calibration and --json.
void add_common(CLI::App& command, Context& context);

// One JSON object on stdout, `schema` and `version` first.
void print_json(std::string_view schema, const core::Json& fields);

core::Json figure_json(const core::Figure& figure);

// "12.3", "1,234" - three digits that matter, for people.
std::string human(double value);
std::string human_bytes(double bytes);
std::string percent(double share);

// A time in ms: "20", "20ms", "1.5s", "800us". Throws core::Error naming `flag`.
double parse_ms(const std::string& text, std::string_view flag);
// A number above 0, and from `least`. Throws core::Error naming `flag`.
double parse_positive(const std::string& text, std::string_view flag, double most, double least = 0);
// A share from 0 to below 1. Throws core::Error naming `flag`.
double parse_share(const std::string& text, std::string_view flag);
int64_t parse_count(const std::string& text, std::string_view flag, int64_t most);

enum class Style : int;

// Columns padded to their widest cell, two spaces between; numbers to the right where `right` says so. At a terminal
// the header is bold.
class Table {
 public:
  explicit Table(std::vector<std::string> header, std::string right = "");  // `right`: one letter a column, 'r' or 'l'
  void row(std::vector<std::string> cells);
  void style(Style style);  // of the last row
  // Where it would be wider than `most` columns, the widest columns of text go on in further lines.
  std::string text(std::string_view indent = "  ", size_t most = 100) const;

 private:
  std::string line(const std::vector<std::string>& cells, const std::vector<size_t>& widths) const;

  std::vector<std::vector<std::string>> rows_;
  std::map<size_t, Style> styles_;  // of rows
  std::string right_;
};

}  // namespace drydock::cli
