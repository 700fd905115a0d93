#include "perfdb/database.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <map>

#include "core/error.h"
#include "perfdb/sqlite.h"

namespace drydock::perfdb {
namespace {

namespace fs = std::filesystem;

struct Table {
  const char* name;
  const char* sql;
};

// Kept in step with docs/perfdb.md; a change of it is a new kSchemaVersion.
constexpr Table kTables[] = {
    {"origins", R"(CREATE TABLE origins(
  id INTEGER PRIMARY KEY, system TEXT NOT NULL, backend TEXT NOT NULL, version TEXT NOT NULL, gpu TEXT NOT NULL,
  driver TEXT NOT NULL, clocks TEXT NOT NULL, kernel TEXT NOT NULL, date TEXT NOT NULL, source TEXT NOT NULL,
  UNIQUE(system, backend, version, gpu, driver, clocks, kernel, date, source)))"},
    {"measurements", R"(CREATE TABLE measurements(
  origin INTEGER NOT NULL REFERENCES origins(id), kind TEXT NOT NULL, op TEXT NOT NULL, latency_us REAL NOT NULL,
  spread_us REAL NOT NULL, samples INTEGER NOT NULL, PRIMARY KEY(origin, kind, op)) WITHOUT ROWID)"},
    {"surfaces", R"(CREATE TABLE surfaces(
  system TEXT NOT NULL, backend TEXT NOT NULL, version TEXT NOT NULL, kind TEXT NOT NULL, dtype TEXT NOT NULL,
  kv_dtype TEXT NOT NULL, variant TEXT NOT NULL, body BLOB NOT NULL,
  UNIQUE(system, backend, kind, dtype, kv_dtype, variant)))"},
    {"systems", "CREATE TABLE systems(name TEXT PRIMARY KEY, facts TEXT NOT NULL) WITHOUT ROWID"},
};
constexpr int64_t kFullCheckBytes = 64 << 20;  // larger files get PRAGMA quick_check
constexpr double kMostUs = 1e9;
constexpr size_t kMostTextBytes = 1024;  // of a field of Origin

int64_t pragma(const Connection& c, const char* sql) {
  Statement s(c, sql);
  return s.step() ? s.integer(0) : 0;
}

void create_schema(Connection& c) {
  c.run("PRAGMA page_size = 16384");
  Transaction transaction(c);
  for (const Table& table : kTables) c.run(table.sql);
  c.run(("PRAGMA user_version = " + std::to_string(kSchemaVersion)).c_str());
  c.run(("PRAGMA application_id = " + std::to_string(kApplicationId)).c_str());
  transaction.commit();
}

std::string without_spaces(std::string text) {
  std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
  return text;
}

// Views and triggers would run what we did not write, so the file holds our tables and nothing else.
void check_tables(const Connection& c) {
  for (const Table& table : kTables) {
    Statement s(c, "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?");
    s.bind(1, std::string_view(table.name));
    if (!s.step()) throw core::Error(c.file() + ": table " + table.name + " is missing");
    if (without_spaces(s.text(0)) != without_spaces(table.sql))
      throw core::Error(c.file() + ": table " + table.name + " has other columns than docs/perfdb.md lists");
  }
  Statement others(c,
                   "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
                   "AND name NOT IN ('origins', 'measurements', 'surfaces', 'systems') LIMIT 1");
  if (others.step())
    throw core::Error(c.file() + ": holds '" + others.text(0).substr(0, 60) + "', which is none of our tables");
}

void check_schema(const Connection& c) {
  if (pragma(c, "PRAGMA application_id") != kApplicationId)
    throw core::Error(c.file() + ": is a SQLite file but no Drydock performance database");
  const int64_t version = pragma(c, "PRAGMA user_version");
  if (version != kSchemaVersion)
    throw core::Error(c.file() + ": has schema version " + std::to_string(version) + "; this program reads " +
                      std::to_string(kSchemaVersion));
  check_tables(c);
}

void check_integrity(const Connection& c, int64_t bytes) {
  Statement s(c, bytes <= kFullCheckBytes ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)");
  std::string answer = s.step() ? s.text(0) : "";
  std::replace(answer.begin(), answer.end(), '\n', ' ');
  if (answer != "ok") throw core::Error(c.file() + ": is corrupt: " + answer.substr(0, 120));
}

int open_flags(Access access) {
  if (access == Access::read) return SQLITE_OPEN_READONLY;
  return SQLITE_OPEN_READWRITE | (access == Access::create ? SQLITE_OPEN_CREATE : 0);
}

// What SQLite can't say about a path, said before it is opened.
void check_file(const fs::path& file, Access access) {
  std::error_code status;
  if (fs::is_directory(file, status))
    throw core::Error(file.string() + ": is a folder; want a performance database file");
  if (!fs::exists(file, status)) {
    if (access == Access::create) return;
    throw core::Error(file.string() + ": no such performance database");
  }
  if (!fs::is_regular_file(file, status))
    throw core::Error(file.string() + ": is no regular file; want a performance database");
  std::string header(20, '\0');
  std::ifstream in(file, std::ios::binary);
  if (!in) throw core::Error(file.string() + ": can't be read");
  in.read(header.data(), static_cast<std::streamsize>(header.size()));
  if (in.gcount() == 0 && access != Access::create)
    throw core::Error(file.string() + ": is empty; want a performance database");
  // A reader of such a file writes beside it, which a read-only folder forbids; ours never are. Bytes 18 and 19 tell.
  if (header.starts_with("SQLite format 3") && (header[18] == 2 || header[19] == 2))
    throw core::Error(file.string() + ": is in WAL mode; run: sqlite3 FILE 'PRAGMA journal_mode = DELETE'");
}

// A killed writer leaves a journal, and only a connection that may write can undo what it left half done.
void undo_leftovers(const fs::path& file) {
  std::error_code status;
  if (!fs::exists(file, status) || !fs::exists(file.string() + "-journal", status)) return;
  pragma(Connection(file, SQLITE_OPEN_READWRITE), "PRAGMA schema_version");
}

core::Error bad_row(const Connection& c, std::string_view op, const std::string& what) {
  return core::Error(c.file() + ": table measurements, op '" + std::string(op.substr(0, 120)) + "': " + what);
}

void check(const Measurement& m) {
  if (!(m.latency_us > 0 && m.latency_us < kMostUs))
    throw core::Error("op " + core::key(m.op) + ": latency_us must be from 0 to 1e9, is " +
                      std::to_string(m.latency_us));
  if (!(m.spread_us >= 0 && m.spread_us < kMostUs) || m.samples < 0)
    throw core::Error("op " + core::key(m.op) + ": spread_us must be from 0 to 1e9 and samples not negative");
}

// In the order of the columns.
std::array<const std::string*, 9> texts(const Origin& o) {
  return {&o.system, &o.backend, &o.version, &o.gpu, &o.driver, &o.clocks, &o.kernel, &o.date, &o.source};
}

void check(const Origin& o) {
  if (o.system.empty() || o.backend.empty()) throw core::Error("system and backend must not be empty");
  const auto is_control = [](unsigned char c) { return c < 32 || c == 127; };
  for (const std::string* text : texts(o))
    if (text->size() > kMostTextBytes || std::any_of(text->begin(), text->end(), is_control))
      throw core::Error("origin '" + text->substr(0, 40) + "' must be under 1 KiB and one line");
}

Measurement measurement_of(const Statement& s) {
  Measurement m;
  m.origin = {s.text(0), s.text(1), s.text(2), s.text(3), s.text(4), s.text(5), s.text(6), s.text(7), s.text(8)};
  m.op = core::parse_op_key(s.text(9));
  m.latency_us = s.number(10);
  m.spread_us = s.number(11);
  m.samples = s.integer(12);
  if (s.text(13) != core::name(m.op.kind))
    throw core::Error("kind '" + s.text(13).substr(0, 40) + "' is another than the op's");
  check(m);
  check(m.origin);
  return m;
}

StoredSurface surface_of(const Statement& s) {
  const auto kind = core::parse_op_kind(s.text(3));
  const auto dtype = core::parse_dtype(s.text(4)), kv_dtype = core::parse_dtype(s.text(5));
  if (!kind || !dtype || !kv_dtype)
    throw core::Error("kind '" + s.text(3).substr(0, 40) + "' or its dtypes are not known");
  return {s.text(0), s.text(1), s.text(2), *kind, *dtype, *kv_dtype, s.text(6), s.blob(7)};
}

}  // namespace

struct Database::Impl {
  Connection connection;
  std::map<Origin, int64_t> origin_ids;

  int64_t origin_id(const Origin& o);
  // Both belong inside a transaction.
  int64_t insert_rows(const std::function<void(const std::function<void(const Measurement&)>&)>& rows);
  int64_t insert(const std::vector<StoredSurface>& surfaces);
};

int64_t Database::Impl::origin_id(const Origin& o) {
  if (const auto found = origin_ids.find(o); found != origin_ids.end()) return found->second;
  check(o);
  const auto bind = [&](Statement& s) {
    int i = 0;
    for (const std::string* text : texts(o)) s.bind(++i, std::string_view(*text));
  };
  Statement insert_one(connection,
                       "INSERT OR IGNORE INTO origins(system, backend, version, gpu, driver, clocks, kernel, date, "
                       "source) VALUES(?,?,?,?,?,?,?,?,?)");
  bind(insert_one);
  insert_one.step();
  Statement select(connection,
                   "SELECT id FROM origins WHERE system=? AND backend=? AND version=? AND gpu=? AND driver=? "
                   "AND clocks=? AND kernel=? AND date=? AND source=?");
  bind(select);
  select.step();
  return origin_ids[o] = select.integer(0);
}

int64_t Database::Impl::insert_rows(const std::function<void(const std::function<void(const Measurement&)>&)>& rows) {
  origin_ids.clear();  // ids of a transaction that was rolled back mean nothing
  Statement one(connection,
                "INSERT OR REPLACE INTO measurements(origin, kind, op, latency_us, spread_us, samples) "
                "VALUES(?,?,?,?,?,?)");
  int64_t written = 0;
  rows([&](const Measurement& m) {
    check(m);
    one.bind(1, origin_id(m.origin)).bind(2, core::name(m.op.kind)).bind(3, std::string_view(core::key(m.op)));
    one.bind(4, m.latency_us).bind(5, m.spread_us).bind(6, m.samples);
    one.step();
    one.reset();
    ++written;
  });
  return written;
}

int64_t Database::Impl::insert(const std::vector<StoredSurface>& surfaces) {
  Statement one(connection,
                "INSERT OR REPLACE INTO surfaces(system, backend, version, kind, dtype, kv_dtype, variant, body) "
                "VALUES(?,?,?,?,?,?,?,?)");
  for (const StoredSurface& s : surfaces) {
    one.bind(1, std::string_view(s.system)).bind(2, std::string_view(s.backend)).bind(3, std::string_view(s.version));
    one.bind(4, core::name(s.kind)).bind(5, core::name(s.dtype)).bind(6, core::name(s.kv_dtype));
    one.bind(7, std::string_view(s.variant)).bind_blob(8, s.body);
    one.step();
    one.reset();
  }
  return static_cast<int64_t>(surfaces.size());
}

Database::Database(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Database::Database(Database&&) noexcept = default;
Database& Database::operator=(Database&&) noexcept = default;
Database::~Database() = default;

fs::path Database::file() const { return impl_->connection.file(); }

Database Database::open(const fs::path& file, Access access) {
  check_file(file, access);
  undo_leftovers(file);
  Database database(std::unique_ptr<Impl>(new Impl{Connection(file, open_flags(access)), {}}));
  Connection& c = database.impl_->connection;
  if (access != Access::read) c.run("PRAGMA cache_size = -65536");  // 64 MiB: rows come in any order
  if (access == Access::create && pragma(c, "PRAGMA page_count") == 0) create_schema(c);
  check_schema(c);
  std::error_code status;
  check_integrity(c, static_cast<int64_t>(fs::file_size(file, status)));
  return database;
}

int64_t Database::write(const std::function<void(const std::function<void(const Measurement&)>&)>& rows) {
  Transaction transaction(impl_->connection);
  const int64_t written = impl_->insert_rows(rows);
  transaction.commit();
  return written;
}

void Database::write(const std::vector<StoredSurface>& surfaces) {
  Transaction transaction(impl_->connection);
  impl_->insert(surfaces);
  transaction.commit();
}

int64_t Database::merge(const fs::path& other_file) {
  std::error_code status;
  if (fs::equivalent(other_file, impl_->connection.file(), status))
    throw core::Error(other_file.string() + ": is the database to merge into; want another");
  const Database other = open(other_file, Access::read);
  Transaction transaction(impl_->connection);
  int64_t written = impl_->insert_rows([&](const auto& add) { other.read({}, add); });
  written += impl_->insert(other.surfaces("", ""));
  transaction.commit();
  return written;
}

void Database::read(const Filter& filter, const std::function<void(const Measurement&)>& row) const {
  std::string sql =
      "SELECT system, backend, version, gpu, driver, clocks, kernel, date, source, op, latency_us, spread_us, "
      "samples, kind FROM measurements JOIN origins ON origin = id WHERE 1";
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
  sql += " ORDER BY system, backend, kind, op, date, version, gpu, driver, clocks, kernel, source";
  Statement s(impl_->connection, sql);
  for (size_t i = 0; i < values.size(); ++i) s.bind(static_cast<int>(i) + 1, std::string_view(values[i]));
  while (s.step()) {
    Measurement m;
    try {
      m = measurement_of(s);
    } catch (const core::Error& error) {
      throw bad_row(impl_->connection, s.text(9), error.what());
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
    try {
      out.push_back(surface_of(s));
    } catch (const core::Error& error) {
      throw core::Error(impl_->connection.file() + ": table surfaces, system '" + s.text(0).substr(0, 40) +
                        "': " + error.what());
    }
  }
  return out;
}

std::vector<Database::Content> Database::contents() const {
  Statement s(
      impl_->connection,
      "SELECT system, backend, version, source, kind, count(*), 0 FROM measurements JOIN origins ON origin = id "
      "GROUP BY system, backend, version, source, kind UNION ALL "
      "SELECT system, backend, version, 'fitted surface', kind, 0, count(*) FROM surfaces "
      "GROUP BY system, backend, version, kind "
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
