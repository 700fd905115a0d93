#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "cli/command.h"
#include "cli/page.h"
#include "cli/plot_data.h"
#include "core/csv.h"
#include "core/error.h"
#include "core/file.h"

namespace drydock::cli {

void add_plot(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("plot", "results of simulate and validate as a page");
  const auto file = std::make_shared<std::string>(), out = std::make_shared<std::string>();
  command->add_option("file", *file, "requests.csv or timeline.csv of `simulate --out`, or the CSV of `validate --out`")
      ->type_name("FILE");
  command->add_option("--out", *out, "page to write, opens in any browser")->type_name("FILE");
  command->add_flag("--json", context.json, "one JSON object on stdout: what the page shows");
  command->footer(
      "Examples:\n  drydock plot run/requests.csv --out requests.html\n"
      "  drydock validate --points measured.csv --out accuracy.csv && drydock plot accuracy.csv --out accuracy.html");
  command->callback([=, &context] {
    if (file->empty()) throw core::Error("FILE is missing; `drydock plot --help` shows an example");
    if (out->empty() && !context.json) throw core::Error("--out is missing; it names the page to write");
    if (!out->empty()) check_page_target(*out, "--out");
    core::Json data = plot_json(core::Csv::read(*file));
    data["file"] = std::filesystem::path(*file).filename().string();
    if (!out->empty()) core::write_file(*out, page_html("drydock.plot", data));
    if (context.json)
      print_json("drydock.plot", data);
    else
      fmt::print("{}, {} rows: {}\n", data["kind"].get<std::string>(), data["rows"].get<int64_t>(), *out);
  });
}

}  // namespace drydock::cli
