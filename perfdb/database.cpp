#include "perfdb/database.h"

#include <cmath>
#include <map>

#include "core/error.h"
#include "perfdb/sqlite.h"

namespace drydock::perfdb {
namespace {

namespace fs = std::filesystem;

// Kept in step with docs/perfdb.md; a change of it is a new kSchemaVersion.
constexpr const char* kSchema = R"(
CREATE TABLE origins(
  id INTEGER PRIMARY KEY, system TEXT NOT NULL, backend TEXT NOT NULL, version TEXT NOT NULL, gpu TEXT NOT NULL,
  driver TEXT NOT NULL, clocks TEXT NOT NULL, kernel TEXT NOT NULL, date TEXT NOT NULL, source TEXT NOT NULL,
  UNIQUE(system, backend, version, gpu, driver, clocks, kernel, date, source));
CREATE TABLE measurements(
  origin INTEGER NOT NULL REFERENCES origins(id), kind TEXT NOT NULL, op TEXT NOT NULL, latency_us REAL NOT NULL,
  spread_us REAL NOT NULL, samples INTEGER NOT NULL, PRIMARY KEY(origin, kind, op)) WITHOUT ROWID;
CREATE TABLE surfaces(
  system TEXT NOT NULL, backend TEXT NOT NULL, version TEXT NOT NULL, kind TEXT NOT NULL, dtype TEXT NOT NULL,
  kv_dtype TEXT NOT NULL, variant TEXT NOT NULL, body BLOB NOT NULL,
  UNIQUE(system, backend, kind, dtype, kv_dtype, variant));
CREATE TABLE systems(name TEXT PRIMARY KEY, facts TEXT NOT NULL) WITHOUT ROWID;
)";
constexpr const char* kTables[] = {"measurements", "origins", "surfaces", "systems"};
constexpr int64_t kFullCheckBytes = 64 << 20;  // larger files get PRAGMA quick_check
constexpr double kMostUs = 1e9;

int64_t pragma(const Connection& c, const char* sql) {
  Statement s(c, sql);
  return s.step() ? s.integer(0) : 0;
}

void create_schema(Connection& c) {
  c.run("PRAGMA page_size = 16384");
  Transaction transaction(c);
  c.run(kSchema);
  c.run(("PRAGMA user_version = " + std::to_string(kSchemaVersion)).c_str());
  c.run(("PRAGMA application_id = " + std::to_string(kApplicationId)).c_str());
  transaction.commit();
}

void check_schema(const Connection& c) {
  if (pragma(c, "PRAGMA application_id") != kApplicationId)
    throw core::Error(c.file() + ": is a SQLite file but no Drydock performance database");
  const int64_t version = pragma(c, "PRAGMA user_version");
  if (version != kSchemaVersion)
    throw core::Error(c.file() + ": has schema version " + std::to_string(version) + "; this program reads " + std::to_string(kSchemaVersion));
  for (const char* table : kTables) {
    Statement s(c, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?");
    s.bind(1, std::string_view(table));
    if (!s.step() || s.integer(0) != 1) throw core::Error(c.file() + ": table " + table + " is missing");
  }
}

void check_integrity(const Connection& c, int64_t bytes) {
  Statement s(c, bytes <= kFullCheckBytes ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)");
  const std::string answer = s.step() ? s.text(0) : "";
  if (answer != "ok") throw core::Error(c.file() + ": is corrupt: " + answer.substr(0, 120));
}

int open_flags(Access access) {
  if (access == Access::read) return SQLITE_OPEN_READONLY;
  return SQLITE_OPEN_READWRITE | (access == Access::create ? SQLITE_OPEN_CREATE : 0);
}

core::Error bad_row(const Connection& c, std::string_view op, const std::string& what) {
  return core::Error(c.file() + ": table measurements, op '" + std::string(op.substr(0, 120)) + "': " + what);
}

void check(const Measurement& m) {
  if (!(m.latency_us > 0 && m.latency_us < kMostUs)) throw core::Error("op " + core::key(m.op) + ": latency_us must be from 0 to 1e9, is " + std::to_string(m.latency_us));
  if (!(m.spread_us >= 0 && m.spread_us < kMostUs) || m.samples < 0) throw core::Error("op " + core::key(m.op) + ": spread_us and samples must not be negative");
}

}  // namespace

struct Database::Impl {
  Connection connection;
  std::map<Origin, int64_t> origin_ids;

  int64_t origin_id(const Origin& o) {
    if (const auto found = origin_ids.find(o); found != origin_ids.end()) return found->second;
    const auto bind = [&](Statement& s) {
      int i = 0;
      for (const std::string* text : {&o.system, &o.backend, &o.version, &o.gpu, &o.driver, &o.clocks, &o.kernel, &o.date, &o.source})
        s.bind(++i, std::string_view(*text));
    };
    Statement insert(connection, "INSERT OR IGNORE INTO origins(system, backend, version, gpu, driver, clocks, kernel, date, source) VALUES(?,?,?,?,?,?,?,?,?)");
    bind(insert);
    insert.step();
    Statement select(connection, "SELECT id FROM origins WHERE system=? AND backend=? AND version=? AND gpu=? AND driver=? AND clocks=? AND kernel=? AND date=? AND source=?");
    bind(select);
    select.step();
    return origin_ids[o] = select.integer(0);
  }
};

Database::Database(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Database::Database(Database&&) noexcept = default;
Database& Database::operator=(Database&&) noexcept = default;
Database::~Database() = default;

Database Database::open(const fs::path& file, Access access) {
  std::error_code status;
  if (fs::is_directory(file, status)) throw core::Error(file.string() + ": is a folder; want a performance database file");
  const bool there = fs::exists(file, status);
  if (!there && access != Access::create) throw core::Error(file.string() + ": no such performance database");
  const auto bytes = there ? static_cast<int64_t>(fs::file_size(file, status)) : 0;
  if (there && bytes == 0 && access != Access::create) throw core::Error(file.string() + ": is empty; want a performance database");
  Database database(std::unique_ptr<Impl>(new Impl{Connection(file, open_flags(access)), {}}));
  Connection& c = database.impl_->connection;
  if (bytes == 0) {
    create_schema(c);
  } else {
    check_schema(c);
    check_integrity(c, bytes);
  }
  return database;
}

int64_t Database::write(const std::function<void(const std::function<void(const Measurement&)>&)>& rows) {
  Transaction transaction(impl_->connection);
  impl_->origin_ids.clear();
  Statement insert(impl_->connection, "INSERT OR REPLACE INTO measurements(origin, kind, op, latency_us, spread_us, samples) VALUES(?,?,?,?,?,?)");
  int64_t written = 0;
  rows([&](const Measurement& m) {
    check(m);
    insert.bind(1, impl_->origin_id(m.origin)).bind(2, core::name(m.op.kind)).bind(3, std::string_view(core::key(m.op)));
    insert.bind(4, m.latency_us).bind(5, m.spread_us).bind(6, m.samples);
    insert.step();
    insert.reset();
    ++written;
  });
  transaction.commit();
  return written;
}

void Database::write(const std::vector<StoredSurface>& surfaces) {
  Transaction transaction(impl_->connection);
  Statement insert(impl_->connection, "INSERT OR REPLACE INTO surfaces(system, backend, version, kind, dtype, kv_dtype, variant, body) VALUES(?,?,?,?,?,?,?,?)");
  for (const StoredSurface& s : surfaces) {
    insert.bind(1, std::string_view(s.system)).bind(2, std::string_view(s.backend)).bind(3, std::string_view(s.version));
    insert.bind(4, core::name(s.kind)).bind(5, core::name(s.dtype)).bind(6, core::name(s.kv_dtype)).bind(7, std::string_view(s.variant));
    insert.bind_blob(8, s.body);
    insert.step();
    insert.reset();
  }
  transaction.commit();
}

int64_t Database::merge(const fs::path& other_file) {
  const Database other = open(other_file, Access::read);
  // An origin names the day, so rows of different days live side by side; the newest of each op is what look-ups use.
  const int64_t changed = write([&](const auto& add) { other.read({}, add); });
  const auto surfaces = other.surfaces("", "");
  write(surfaces);
  return changed + static_cast<int64_t>(surfaces.size());
}

void Database::read(const Filter& filter, const std::function<void(const Measurement&)>& row) const {
  std::string sql = "SELECT system, backend, version, gpu, driver, clocks, kernel, date, source, op, latency_us, spread_us, samples "
                    "FROM measurements JOIN origins ON origin = id WHERE 1";
  std::vector<std::string> values;
  const auto add = [&](const char* column, const std::optional<std::string>& value) {
    if (!value) return;
    sql += std::string(" AND ") + column + " = ?";
    values.push_back(*value);
  };
  add("system", filter.system);
  add("backend", filter.backend);
  add("version", filter.version);
  if (filter.kind) add("kind", std::string(core::name(*filter.kind)));
  sql += " ORDER BY system, backend, kind, op, date, id";
  Statement s(impl_->connection, sql);
  for (size_t i = 0; i < values.size(); ++i) s.bind(static_cast<int>(i) + 1, std::string_view(values[i]));
  while (s.step()) {
    Measurement m;
    const std::string op = s.text(9);
    try {
      m.op = core::parse_op_key(op);
    } catch (const core::Error& error) {
      throw bad_row(impl_->connection, op, error.what());
    }
    m.origin = {s.text(0), s.text(1), s.text(2), s.text(3), s.text(4), s.text(5), s.text(6), s.text(7), s.text(8)};
    m.latency_us = s.number(10);
    m.spread_us = s.number(11);
    m.samples = s.integer(12);
    try {
      check(m);
    } catch (const core::Error& error) {
      throw bad_row(impl_->connection, op, error.what());
    }
    row(m);
  }
}

std::vector<StoredSurface> Database::surfaces(std::string_view system, std::string_view backend) const {
  std::string sql = "SELECT system, backend, version, kind, dtype, kv_dtype, variant, body FROM surfaces WHERE 1";
  if (!system.empty()) sql += " AND system = ?1";
  if (!backend.empty()) sql += " AND backend = ?2";
  sql += " ORDER BY system, backend, kind, dtype, kv_dtype, variant";
  Statement s(impl_->connection, sql);
  if (!system.empty()) s.bind(1, system);
  if (!backend.empty()) s.bind(2, backend);
  std::vector<StoredSurface> out;
  while (s.step()) {
    const auto kind = core::parse_op_kind(s.text(3));
    const auto dtype = core::parse_dtype(s.text(4)), kv_dtype = core::parse_dtype(s.text(5));
    if (!kind || !dtype || !kv_dtype)
      throw core::Error(impl_->connection.file() + ": table surfaces: kind '" + s.text(3).substr(0, 40) + "' or its dtypes are not known");
    out.push_back({s.text(0), s.text(1), s.text(2), *kind, *dtype, *kv_dtype, s.text(6), s.blob(7)});
  }
  return out;
}

std::vector<Database::Content> Database::contents() const {
  Statement s(impl_->connection,
              "SELECT system, backend, version, source, kind, count(*), 0 FROM measurements JOIN origins ON origin = id "
              "GROUP BY system, backend, version, source, kind UNION ALL "
              "SELECT system, backend, version, 'fitted surface', kind, 0, count(*) FROM surfaces GROUP BY system, backend, version, kind "
              "ORDER BY 1, 2, 5, 3, 4");
  std::vector<Content> out;
  while (s.step()) {
    const auto kind = core::parse_op_kind(s.text(4));
    if (!kind) throw core::Error(impl_->connection.file() + ": kind '" + s.text(4).substr(0, 40) + "' is not known");
    out.push_back({s.text(0), s.text(1), s.text(2), s.text(3), *kind, s.integer(5), s.integer(6)});
  }
  return out;
}

}  // namespace drydock::perfdb
