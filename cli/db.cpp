#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "cli/command.h"
#include "cli/db_diff.h"
#include "configurator/sweep_store.h"
#include "core/error.h"
#include "core/text.h"
#include "models/catalogue.h"
#include "models/system.h"
#include "perfdb/csv_exchange.h"
#include "perfdb/database.h"
#include "perfdb/kernel_times.h"

namespace drydock::cli {
namespace {

using perfdb::Access;
using perfdb::Database;

constexpr size_t kMostRowsShown = 200;

struct DbOptions {
  std::string csv, out, system, backend, kind, op;
  std::vector<std::string> from;
};

std::filesystem::path file_of(const Context& context) {
  return context.database.empty() ? models::data_dir() / "perf.db" : std::filesystem::path(context.database);
}

// Commands that write must be told where; the shipped database is not theirs.
std::filesystem::path writable(const Context& context) {
  if (context.database.empty()) throw core::Error("--db is missing; it names the database to write");
  return context.database;
}

core::Json content_json(const Database::Content& c) {
  return {{"system", c.system},       {"backend", c.backend},           {"version", c.version},
          {"op", core::name(c.kind)}, {"measurements", c.measurements}, {"surfaces", c.surfaces},
          {"source", c.source}};
}

void info(const Context& context) {
  const Database database = Database::open(file_of(context), Access::read);
  core::Json list = core::Json::array();
  Table table({"system", "backend", "version", "op", "measurements", "surfaces", "source"}, "llllrrl");
  for (const Database::Content& c : database.contents()) {
    list.push_back(content_json(c));
    table.row({c.system, c.backend, c.version, std::string(core::name(c.kind)), std::to_string(c.measurements),
               std::to_string(c.surfaces), c.source});
  }
  const std::string file = file_of(context).string();
  if (context.json)
    print_json("drydock.db.info", {{"file", file}, {"schema_version", perfdb::kSchemaVersion}, {"contents", list}});
  else
    fmt::print("{}: schema version {}\n{}", file, perfdb::kSchemaVersion, table.text(""));
}

core::Json measurement_json(const perfdb::Measurement& m) {
  const perfdb::Origin& o = m.origin;
  return {{"op", core::key(m.op)}, {"latency_us", m.latency_us}, {"spread_us", m.spread_us}, {"samples", m.samples},
          {"system", o.system},    {"backend", o.backend},       {"version", o.version},     {"gpu", o.gpu},
          {"driver", o.driver},    {"clocks", o.clocks},         {"kernel", o.kernel},       {"date", o.date},
          {"source", o.source}};
}

Database::Filter filter_of(const DbOptions& o) {
  Database::Filter filter;
  if (!o.system.empty()) filter.system = o.system;
  if (!o.backend.empty()) filter.backend = o.backend;
  if (!o.op.empty()) filter.kind = core::parse_op_key(o.op).kind;  // rows are ordered by kind, so fewer are read
  if (o.kind.empty()) return filter;
  filter.kind = core::parse_op_kind(o.kind);
  if (!filter.kind) {
    std::vector<std::string> kinds;
    for (int i = 0; i < core::kOpKinds; ++i) kinds.emplace_back(core::name(static_cast<core::OpKind>(i)));
    throw core::Error("--kind '" + o.kind.substr(0, 60) + "': want an op kind such as gemm" +
                      core::suggestion(o.kind, kinds));
  }
  return filter;
}

// That nothing was found may be a mistyped name: it is told unless the database or the catalogue has it.
void check_names(const DbOptions& o, const Database& database) {
  std::vector<std::string> systems = models::system_names(), backends = {"trtllm", "vllm", "sglang", "drydock"};
  for (const Database::Content& c : database.contents()) {
    systems.push_back(c.system);
    backends.push_back(c.backend);
  }
  const auto check = [](const std::string& name, const char* flag, const std::vector<std::string>& known) {
    if (name.empty() || std::find(known.begin(), known.end(), name) != known.end()) return;
    throw core::Error(std::string(flag) + " '" + name.substr(0, 60) + "': not in this database, nor known otherwise" +
                      core::suggestion(name, known));
  };
  check(o.system, "--system", systems);
  check(o.backend, "--backend", backends);
}

// The look-up's answer for one op, beside the rows that were measured.
std::optional<core::Json> looked_up(const DbOptions& o, const Context& context, const Database& database) {
  if (o.op.empty() || o.system.empty() || o.backend.empty()) return std::nullopt;
  const perfdb::KernelTimes times(database, models::find_system(o.system).hardware, o.backend);
  const perfdb::KernelTime t = times.of(core::parse_op_key(o.op));
  const std::string borrowed(times.borrowed_from());
  if (!context.json)
    fmt::print("look-up: {} us, 80% band {} .. {}, {}{}\n", human(t.latency_us), human(t.low_us), human(t.high_us),
               core::name(t.provenance), borrowed.empty() ? "" : ", borrowed from " + borrowed);
  return core::Json{{"latency_us", t.latency_us},
                    {"low_us", t.low_us},
                    {"high_us", t.high_us},
                    {"provenance", core::name(t.provenance)},
                    {"borrowed_from", borrowed}};
}

// The key comes last: it is the one column without a bound on its width.
void print_rows(const std::vector<perfdb::Measurement>& rows, size_t found) {
  if (found == 0) {
    fmt::print("no measurements\n");
    return;
  }
  Table table({"us", "system", "backend", "version", "source", "op"}, "rlllll");
  for (const perfdb::Measurement& m : rows)
    table.row(
        {human(m.latency_us), m.origin.system, m.origin.backend, m.origin.version, m.origin.source, core::key(m.op)});
  fmt::print("{}", table.text(""));
  if (found > rows.size()) fmt::print("{} more; --json and `drydock db export` give all\n", found - rows.size());
}

void query(const DbOptions& o, const Context& context) {
  const Database database = Database::open(file_of(context), Access::read);
  std::optional<core::Op> op;
  if (!o.op.empty()) op = core::parse_op_key(o.op);
  core::Json list = core::Json::array();
  std::vector<perfdb::Measurement> shown;
  size_t found = 0;
  database.read(filter_of(o), [&](const perfdb::Measurement& m) {
    if (op && !(m.op == *op)) return;
    ++found;
    if (context.json)
      list.push_back(measurement_json(m));
    else if (shown.size() < kMostRowsShown)
      shown.push_back(m);
  });
  if (found == 0) check_names(o, database);
  const auto lookup = looked_up(o, context, database);
  if (!context.json) return print_rows(shown, found);
  core::Json out = {{"measurements", list}};
  if (lookup) out["lookup"] = *lookup;
  print_json("drydock.db.query", out);
}

// Runs `change` on the database to write; one that was not there before goes away again when it throws.
template <typename Change>
int64_t changed_rows(const Context& context, Change change) {
  const std::filesystem::path file = writable(context);
  const bool is_new = !std::filesystem::exists(file);
  try {
    Database database = Database::open(file, Access::create);
    return change(database);
  } catch (...) {
    std::error_code status;
    if (is_new) std::filesystem::remove(file, status);
    throw;
  }
}

void import(const DbOptions& o, const Context& context) {
  if (o.csv.empty()) throw core::Error("--csv is missing; it names the measurements to import");
  const bool shows = isatty(STDERR_FILENO);
  const int64_t rows = changed_rows(context, [&](Database& database) {
    return perfdb::import_csv(database, o.csv, [&](int64_t so_far) {
      if (shows) fmt::print(stderr, "\r{} rows", so_far);
    });
  });
  if (shows) fmt::print(stderr, "\r{:20}\r", "");
  if (context.json)
    print_json("drydock.db.import", {{"rows", rows}, {"db", context.database}});
  else
    fmt::print("{} row{} imported into {}\n", rows, rows == 1 ? "" : "s", context.database);
}

void export_rows(const DbOptions& o, const Context& context) {
  if (o.out.empty()) throw core::Error("--out is missing; it names the CSV to write");
  const int64_t rows = perfdb::export_csv(Database::open(file_of(context), Access::read), o.out);
  if (context.json)
    print_json("drydock.db.export", {{"rows", rows}, {"out", o.out}});
  else
    fmt::print("{} row{} written to {}\n", rows, rows == 1 ? "" : "s", o.out);
}

int64_t merge_databases(const DbOptions& o, const Context& context) {
  return changed_rows(context, [&](Database& database) {
    int64_t rows = 0;
    for (const std::string& file : o.from) rows += database.merge(file);
    return rows;
  });
}

// Results of a sweep's shards are merged by the same command.
int64_t merge_sweeps(const DbOptions& o, const Context& context) {
  const std::filesystem::path file = writable(context);
  const bool is_new = !std::filesystem::exists(file);
  int64_t rows = 0;
  try {
    for (const std::string& from : o.from) rows += configurator::SweepStore::merge(file, from);
  } catch (...) {
    std::error_code status;
    if (is_new) std::filesystem::remove(file, status);
    throw;
  }
  return rows;
}

void merge(const DbOptions& o, const Context& context) {
  if (o.from.empty()) throw core::Error("--from is missing; it names the database to add");
  const int64_t rows =
      configurator::is_sweep_file(o.from.front()) ? merge_sweeps(o, context) : merge_databases(o, context);
  if (context.json)
    print_json("drydock.db.merge", {{"rows", rows}, {"db", context.database}});
  else
    fmt::print("{} row{} merged into {}\n", rows, rows == 1 ? "" : "s", context.database);
}

}  // namespace

void add_db(CLI::App& app, Context& context) {
  CLI::App* db = app.add_subcommand("db", "the performance database");
  db->require_subcommand(1);
  const auto o = std::make_shared<DbOptions>();
  const auto add = [&](const char* name, const char* what, const char* example, auto action) {
    CLI::App* command = db->add_subcommand(name, what);
    add_common(*command, context);
    command->footer(std::string("Example:\n  drydock db ") + example);
    command->callback([=, &context] { action(*o, context); });
    return command;
  };
  add("info", "what it holds", "info --db perf.db", [](const DbOptions&, const Context& c) { info(c); });
  CLI::App* q = add("query", "its rows, and what a look-up answers",
                    "query --system h200_sxm --backend trtllm --op gemm/fp8/m=64,n=4096,k=4096", query);
  q->add_option("--system", o->system, "of this system only");
  q->add_option("--backend", o->backend, "of this backend only");
  q->add_option("--kind", o->kind, "of this op kind only");
  q->add_option("--op", o->op, "one op, by its key");
  add("import", "adds measurements from a CSV", "import --csv measured.csv --db perf.db", import)
      ->add_option("--csv", o->csv, "measurements")
      ->type_name("FILE");
  add("export", "writes its measurements as a CSV", "export --db perf.db --out measured.csv", export_rows)
      ->add_option("--out", o->out, "CSV to write")
      ->type_name("FILE");
  add("merge", "adds another database", "merge --db perf.db --from other.db", merge)
      ->add_option("--from", o->from, "databases to add, or results of a sweep's shards")
      ->type_name("FILE");
  add_db_diff(*db, context);
}

}  // namespace drydock::cli
