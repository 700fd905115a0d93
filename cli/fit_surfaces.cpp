// drydock-fit: measurements -> shipped surfaces, with the table of what they miss. Run by scripts/fit_surfaces.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "models/system.h"
#include "perfdb/database.h"
#include "perfdb/fit.h"

namespace {

using namespace drydock;

struct Errors {
  std::vector<float> sizes;  // |predicted / measured - 1|
  double covered = 0;

  void add(const perfdb::FitReport& report) {
    for (const float error : report.log_errors) sizes.push_back(std::abs(std::expm1(-error)));
    covered += report.covered * static_cast<double>(report.samples);
  }

  std::string row() {
    std::sort(sizes.begin(), sizes.end());
    const auto at = [&](double share) {
      return 100 * sizes[std::min(static_cast<size_t>(share * static_cast<double>(sizes.size())), sizes.size() - 1)];
    };
    return fmt::format("{} | {:.1f} | {:.1f} | {:.1f} | {:.0f}", sizes.size(), at(0.5), at(0.8), at(0.95),
                       100 * covered / static_cast<double>(sizes.size()));
  }
};

using Table = std::map<std::string, Errors>;

void print(const char* title, Table& table) {
  fmt::print("\n| {} | samples | median % | p80 % | p95 % | in band % |\n|---|---|---|---|---|---|\n", title);
  for (auto& [name, errors] : table) fmt::print("| {} | {} |\n", name, errors.row());
}

// Newest version of each (system, backend): the importer already took one per table; they share a surface set.
std::map<std::pair<std::string, std::string>, std::string> groups(const perfdb::Database& database) {
  std::map<std::pair<std::string, std::string>, std::string> out;
  for (const perfdb::Database::Content& content : database.contents()) {
    if (content.measurements == 0) continue;
    std::string& version = out[{content.system, content.backend}];
    if (content.kind == core::OpKind::gemm || version.empty()) version = content.version;
  }
  return out;
}

void run(const std::vector<std::string>& inputs, const std::string& systems, const std::string& out_file) {
  perfdb::Database out = perfdb::Database::open(out_file, perfdb::Access::create);
  Table by_op, by_backend, by_surface;
  for (const std::string& input : inputs) {
    const perfdb::Database in = perfdb::Database::open(input, perfdb::Access::read);
    for (const auto& [who, version] : groups(in)) {
      const auto& [system, backend] = who;
      const core::Hardware hardware = models::read_system(systems + "/" + system + ".json").hardware;
      std::vector<perfdb::Sample> samples;
      in.read({system, backend, {}, {}},
              [&](const perfdb::Measurement& row) { samples.push_back({row.op, row.latency_us}); });
      const perfdb::FitResult result = perfdb::fit_surfaces(std::move(samples), hardware, backend, version);
      out.write(result.surfaces);
      for (const perfdb::FitReport& report : result.reports) {
        const std::string op{core::name(report.kind)};
        by_op[op].add(report);
        by_backend[op + " " + system + " " + backend].add(report);
        by_surface[fmt::format("{} {} {} {}+{} {}", op, system, backend, core::name(report.dtype),
                               core::name(report.kv_dtype), perfdb::variant_text(report.variant))]
            .add(report);
      }
      fmt::print(stderr, "{} {} {}: {} surfaces\n", system, backend, version, result.surfaces.size());
    }
  }
  print("op", by_op);
  print("op, system, backend", by_backend);
  print("surface", by_surface);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Fits the shipped efficiency surfaces to measurements and prints their held-out errors."};
  std::vector<std::string> inputs;
  std::string systems, out;
  app.add_option("--measurements", inputs, "databases with measurements")->required()->check(CLI::ExistingFile);
  app.add_option("--systems", systems, "folder of system JSON files")->required()->check(CLI::ExistingDirectory);
  app.add_option("--out", out, "database to write the surfaces to, made when missing")->required();
  CLI11_PARSE(app, argc, argv);
  try {
    run(inputs, systems, out);
  } catch (const std::exception& error) {
    fmt::print(stderr, "drydock-fit: {}\n", error.what());
    return 2;
  }
  return 0;
}
