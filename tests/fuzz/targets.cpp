#include "tests/fuzz/targets.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/csv.h"
#include "core/op.h"
#include "models/catalogue.h"
#include "models/lowering.h"
#include "models/plan.h"
#include "perfdb/database.h"
#include "perfdb/surface.h"
#include "tests/fuzz/refusable.h"

namespace drydock::fuzz {
namespace {

namespace fs = std::filesystem;

void lower(const models::Architecture& architecture) {
  const models::Parallelism one_gpu;
  const models::Precision& precision = architecture.precision;
  if (why_illegal(architecture, precision, one_gpu)) return;
  const models::BatchPart parts[] = {{4, 1, 1000, true, true}, {1, 512, 128, true, false}};
  std::vector<models::LayerOp> ops;
  models::Lowering(architecture, precision, one_gpu).lower(parts, 0, ops);
  for (const models::LayerOp& op : ops) {
    expect(std::isfinite(core::flops(op.op)) && core::flops(op.op) >= 0, "FLOP of an op are a number");
    expect(std::isfinite(core::bytes(op.op)) && core::bytes(op.op) >= 0, "bytes of an op are a number");
  }
  expect(std::isfinite(stage_memory(architecture, precision, one_gpu, 0, 8192).fixed()), "memory is a number");
}

void read_op_key(std::string_view text) {
  const core::Op op = core::parse_op_key(text);
  expect(core::parse_op_key(core::key(op)) == op, "an op key reads back");
  expect(!std::isnan(core::flops(op)) && !std::isnan(core::bytes(op)), "an op has a cost");
}

void read_cells(const core::Csv& table) {
  for (size_t row = 0; row < table.rows(); ++row)
    for (size_t column = 0; column < table.columns().size(); ++column) {
      refusable([&] { table.number(row, column, -1e9, 1e9); });
      refusable([&] { table.integer(row, column, 0, 1'000'000); });
      refusable([&] { read_op_key(table.cell(row, column)); });
    }
}

void read_everything(const fs::path& file) {
  const auto db = perfdb::Database::open(file, perfdb::Access::read);
  refusable([&] { db.contents(); });
  refusable([&] {
    for (const perfdb::StoredSurface& stored : db.surfaces("", ""))
      refusable([&] { perfdb::decode(stored.body, "surface"); });
  });
  refusable([&] { db.read({}, [](const perfdb::Measurement&) {}); });
}

}  // namespace

void config(std::string_view input) {
  constexpr std::string_view kBreak = "\n---\n";
  const size_t at = input.find(kBreak);
  const std::string_view quant = at == std::string_view::npos ? "" : input.substr(at + kBreak.size());
  refusable([&] {
    const models::Architecture architecture = models::parse_config(input.substr(0, at), quant, "config.json");
    const auto count = count_parameters(architecture);
    expect(std::isfinite(count.total) && count.active >= 0, "parameters are counted");
    lower(architecture);
  });
}

void plan(std::string_view input) {
  refusable([&] {
    const std::string written = to_json(models::parse_plan(input, "plan.json"));
    expect(to_json(models::parse_plan(written, "written plan")) == written, "a plan reads back");
  });
}

void csv(std::string_view input) {
  refusable([&] { read_cells(core::Csv::parse(input, "x.csv")); });
}

void database(std::string_view input) {
  const fs::path file = fs::temp_directory_path() / ("drydock_fuzz_" + std::to_string(::getpid()) + ".db");
  std::ofstream(file, std::ios::binary) << input;
  refusable([&] { read_everything(file); });
  fs::remove(file);
}

}  // namespace drydock::fuzz
