// drydock_fit: measurements -> shipped surfaces, with the table of what they miss. Run by scripts/fit_surfaces.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "models/system.h"
#include "perfdb/database.h"
#include "perfdb/fit.h"
#include "perfdb/kernel_times.h"

namespace {

using namespace drydock;

struct Errors {
  std::vector<double> sizes;  // |predicted / measured - 1|
  double covered = 0;         // rows inside their band

  void add(double log_error, double share_covered) {
    sizes.push_back(std::abs(std::expm1(-log_error)));
    covered += share_covered;
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
  fmt::print("\n| {} | rows | median % | p80 % | p95 % | in band % |\n|---|---|---|---|---|---|\n", title);
  for (auto& [name, errors] : table) fmt::print("| {} | {} |\n", name, errors.row());
}

// Per (system, backend) the version to put on its surfaces: that of the GEMM table, which every release has.
std::map<std::pair<std::string, std::string>, std::string> groups(const perfdb::Database& database) {
  std::map<std::pair<std::string, std::string>, std::string> out;
  for (const perfdb::Database::Content& content : database.contents()) {
    if (content.measurements == 0) continue;
    std::string& version = out[{content.system, content.backend}];
    if (content.kind == core::OpKind::gemm || version.empty()) version = content.version;
  }
  return out;
}

// Calls visit(samples, hardware, backend, version) for each (system, backend) of the inputs.
template <typename Visit>
void for_each_group(const std::vector<std::string>& inputs, const std::string& systems, Visit visit) {
  for (const std::string& input : inputs) {
    const perfdb::Database in = perfdb::Database::open(input, perfdb::Access::read);
    for (const auto& [who, version] : groups(in)) {
      const auto& [system, backend] = who;
      const core::Hardware hardware = models::read_system(systems + "/" + system + ".json").hardware;
      perfdb::Database::Filter filter;
      filter.system = system;
      filter.backend = backend;
      std::vector<perfdb::Sample> samples;
      in.read(filter, [&](const perfdb::Measurement& row) { samples.push_back({row.op, row.latency_us}); });
      visit(std::move(samples), hardware, backend, version);
    }
  }
}

void fit(const std::vector<std::string>& inputs, const std::string& systems, const std::string& out_file) {
  perfdb::Database out = perfdb::Database::open(out_file, perfdb::Access::create);
  Table by_op, by_backend, by_surface;
  for_each_group(inputs, systems, [&](auto samples, const auto& hardware, const auto& backend, const auto& version) {
    const perfdb::FitResult result = perfdb::fit_surfaces(std::move(samples), hardware, backend, version);
    out.write(result.surfaces);
    for (const perfdb::FitReport& report : result.reports) {
      const std::string op{core::name(report.kind)};
      const std::string surface = fmt::format("{} {} {} {}+{} {}", op, hardware.name, backend, core::name(report.dtype),
                                              core::name(report.kv_dtype), perfdb::variant_text(report.variant));
      for (const float error : report.log_errors)
        for (Errors* errors : {&by_op[op], &by_backend[op + " " + hardware.name + " " + backend], &by_surface[surface]})
          errors->add(static_cast<double>(error), report.covered);
    }
    fmt::print(stderr, "{} {} {}: {} surfaces\n", hardware.name, backend, version, result.surfaces.size());
  });
  print("op", by_op);
  print("op, system, backend", by_backend);
  print("surface", by_surface);
}

// How far the answers of a database are from measurements; with surfaces taken out of it, how far substitutes are.
void check(const std::vector<std::string>& inputs, const std::string& systems, const std::string& database_file) {
  const perfdb::Database database = perfdb::Database::open(database_file, perfdb::Access::read);
  Table table;
  for_each_group(inputs, systems, [&](auto samples, const auto& hardware, const auto& backend, const auto&) {
    const perfdb::KernelTimes times(database, hardware, backend);
    for (const perfdb::Sample& sample : samples) {
      const perfdb::KernelTime time = times.of(sample.op);
      const bool inside = time.low_us <= sample.latency_us && sample.latency_us <= time.high_us;
      table[fmt::format("{} {} {} {}", core::name(sample.op.kind), hardware.name, backend, core::name(time.provenance))]
          .add(std::log(sample.latency_us / time.latency_us), inside);
    }
  });
  print("op, system, backend, provenance", table);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Fits the shipped efficiency surfaces to measurements and prints their held-out errors."};
  std::vector<std::string> inputs;
  std::string systems, out, checked;
  app.add_option("--measurements", inputs, "databases with measurements")->required()->check(CLI::ExistingFile);
  app.add_option("--systems", systems, "folder of system JSON files")->required()->check(CLI::ExistingDirectory);
  CLI::Option* const out_option = app.add_option("--out", out, "database to write the surfaces to, made when missing");
  app.add_option("--check", checked, "instead of fitting: a database whose answers to compare with the measurements")
      ->excludes(out_option)
      ->check(CLI::ExistingFile);
  CLI11_PARSE(app, argc, argv);
  try {
    if (!checked.empty())
      check(inputs, systems, checked);
    else if (!out.empty())
      fit(inputs, systems, out);
    else
      throw core::Error("--out or --check is missing");
  } catch (const std::exception& error) {
    fmt::print(stderr, "drydock_fit: {}\n", error.what());
    return 2;
  }
  return 0;
}
