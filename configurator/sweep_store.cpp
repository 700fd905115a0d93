#include "configurator/sweep_store.h"

#include <fmt/format.h>

#include <fstream>

#include "core/error.h"
#include "perfdb/sqlite.h"

namespace drydock::configurator {
namespace {

namespace fs = std::filesystem;
using perfdb::Connection;
using perfdb::Statement;
using perfdb::Transaction;

constexpr const char* kSweepTables[][2] = {
    {"facts", "CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"},
    {"answers", "CREATE TABLE answers(item INTEGER PRIMARY KEY, answer TEXT NOT NULL, wall_ms REAL NOT NULL)"},
};
constexpr size_t kMostAnswerBytes = 1u << 20;

int64_t sweep_pragma(const Connection& c, const char* sql) {
  Statement s(c, sql);
  return s.step() ? s.integer(0) : 0;
}

// A killed writer leaves a journal, which only a connection that may write can roll back.
void undo_half_done(const fs::path& file) {
  std::error_code status;
  if (fs::exists(file.string() + "-journal", status))
    sweep_pragma(Connection(file, SQLITE_OPEN_READWRITE), "PRAGMA schema_version");
}

// What SQLite can't say about a path, said before it is opened. An empty file is one that was killed before its first
// commit.
void check_sweep_path(const fs::path& file, bool may_be_new) {
  std::error_code status;
  if (fs::is_directory(file, status)) throw core::Error(file.string() + ": is a folder; want a sweep's file");
  if (!fs::exists(file, status)) {
    if (may_be_new) return;
    throw core::Error(file.string() + ": no such sweep file; `drydock sweep sweep.yaml --out DIR` makes one");
  }
  if (!fs::is_regular_file(file, status))
    throw core::Error(file.string() + ": is no regular file; want a sweep's file");
  std::string header(20, '\0');
  std::ifstream in(file, std::ios::binary);
  if (!in) throw core::Error(file.string() + ": can't be read");
  in.read(header.data(), static_cast<std::streamsize>(header.size()));
  if (in.gcount() == 0 && may_be_new) return;
  if (!header.starts_with("SQLite format 3")) throw core::Error(file.string() + ": is no file of a sweep");
  if (header[18] == 2 || header[19] == 2)
    throw core::Error(file.string() + ": is in WAL mode; run: sqlite3 FILE 'PRAGMA journal_mode = DELETE'");
}

void create_sweep_tables(Connection& c, const std::string& sweep, const std::string& basis) {
  Transaction transaction(c);
  for (const auto& table : kSweepTables) c.run(table[1]);
  Statement insert(c, "INSERT INTO facts(name, value) VALUES('sweep', ?), ('basis', ?)");
  insert.bind(1, std::string_view(sweep)).bind(2, std::string_view(basis)).step();
  c.run(fmt::format("PRAGMA user_version = {}", kSweepVersion).c_str());
  c.run(fmt::format("PRAGMA application_id = {}", kSweepApplicationId).c_str());
  transaction.commit();
}

// Views and triggers would run what we did not write, so the file holds our tables and nothing else.
void check_sweep_tables(const Connection& c) {
  if (sweep_pragma(c, "PRAGMA application_id") != kSweepApplicationId)
    throw core::Error(c.file() + ": is a SQLite file but none of a sweep");
  const int64_t version = sweep_pragma(c, "PRAGMA user_version");
  if (version != kSweepVersion)
    throw core::Error(fmt::format("{}: has sweep version {}; this program reads {}", c.file(), version, kSweepVersion));
  for (const auto& table : kSweepTables) {
    Statement s(c, "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?");
    if (!s.bind(1, std::string_view(table[0])).step() || s.text(0) != table[1])
      throw core::Error(c.file() + ": table " + table[0] + " is missing or has other columns");
  }
  Statement others(c,
                   "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT IN "
                   "('facts', 'answers') LIMIT 1");
  if (others.step())
    throw core::Error(c.file() + ": holds '" + others.text(0).substr(0, 60) + "', which is none of our tables");
  Statement intact(c, "PRAGMA quick_check(1)");
  if (!intact.step() || intact.text(0) != "ok") throw core::Error(c.file() + ": is corrupt; want an intact copy of it");
}

core::Json fact(const Connection& c, std::string_view name) {
  Statement s(c, "SELECT value FROM facts WHERE name = ?");
  if (!s.bind(1, name).step()) throw core::Error(c.file() + ": fact '" + std::string(name) + "' is missing");
  return core::parse_json(s.text(0), c.file());
}

void check_same(const Connection& c, const core::Json& sweep, const core::Json& basis, const core::Json& want_sweep,
                const core::Json& want_basis) {
  if (sweep != want_sweep)
    throw core::Error(c.file() +
                      ": holds answers to another sweep; want another --out, or the YAML that it was begun with");
  for (const auto& [name, value] : want_basis.items())
    if (!basis.contains(name) || basis[name] != value)
      throw core::Error(
          fmt::format("{}: its answers rest on another {}; want another --out, or the one that it was "
                      "begun with",
                      c.file(), name == "drydock" ? "version of drydock" : std::string(name)));
}

}  // namespace

struct SweepStore::Impl {
  Connection connection;
  core::Json sweep, basis;
};

SweepStore::SweepStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SweepStore::SweepStore(SweepStore&&) noexcept = default;
SweepStore& SweepStore::operator=(SweepStore&&) noexcept = default;
SweepStore::~SweepStore() = default;

bool is_sweep_file(const fs::path& file) {
  constexpr size_t kHeader = 72, kIdAt = 68;  // of application_id, big-endian: the SQLite file format
  std::ifstream in(file, std::ios::binary);
  std::string header(kHeader, '\0');
  if (!in.read(header.data(), kHeader) || !header.starts_with("SQLite format 3")) return false;
  uint32_t id = 0;
  for (size_t i = 0; i < 4; ++i) id = id << 8 | static_cast<unsigned char>(header[kIdAt + i]);
  return id == static_cast<uint32_t>(kSweepApplicationId);
}

SweepStore SweepStore::read(const fs::path& file) {
  check_sweep_path(file, false);
  undo_half_done(file);
  auto impl = std::make_unique<Impl>(Impl{Connection(file, SQLITE_OPEN_READONLY), {}, {}});
  check_sweep_tables(impl->connection);
  impl->sweep = fact(impl->connection, "sweep");
  impl->basis = fact(impl->connection, "basis");
  return SweepStore(std::move(impl));
}

SweepStore SweepStore::write(const fs::path& file, const core::Json& sweep, const core::Json& basis) {
  check_sweep_path(file, true);
  auto impl = std::make_unique<Impl>(Impl{Connection(file, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE), sweep, basis});
  Connection& c = impl->connection;
  const bool fresh = sweep_pragma(c, "SELECT count(*) FROM sqlite_schema") == 0;
  if (fresh) create_sweep_tables(c, sweep.dump(), basis.dump());
  check_sweep_tables(c);
  check_same(c, fact(c, "sweep"), fact(c, "basis"), sweep, basis);
  return SweepStore(std::move(impl));
}

int64_t SweepStore::merge(const fs::path& into, const fs::path& from) {
  const SweepStore source = read(from);
  std::error_code status;
  if (fs::equivalent(into, from, status)) throw core::Error(from.string() + ": can't be merged into itself");
  SweepStore target = write(into, source.sweep(), source.basis());
  Transaction transaction(target.impl_->connection);
  Statement insert(target.impl_->connection, "INSERT OR IGNORE INTO answers(item, answer, wall_ms) VALUES(?,?,?)");
  Statement there(target.impl_->connection, "SELECT answer FROM answers WHERE item = ?");
  Statement rows(source.impl_->connection, "SELECT item, answer, wall_ms FROM answers ORDER BY item");
  const int64_t before = target.count();
  while (rows.step()) {
    insert.reset();
    insert.bind(1, rows.integer(0)).bind(2, std::string_view(rows.text(1))).bind(3, rows.number(2)).step();
    there.reset();
    if (!there.bind(1, rows.integer(0)).step() || there.text(0) != rows.text(1))
      throw core::Error(
          fmt::format("{}: item {} has another answer than in {}", from.string(), rows.integer(0), into.string()));
  }
  there.reset();
  insert.reset();
  transaction.commit();
  return target.count() - before;
}

const core::Json& SweepStore::sweep() const { return impl_->sweep; }
const core::Json& SweepStore::basis() const { return impl_->basis; }
int64_t SweepStore::count() const { return sweep_pragma(impl_->connection, "SELECT count(*) FROM answers"); }

std::set<int64_t> SweepStore::done() const {
  std::set<int64_t> out;
  for (Statement s(impl_->connection, "SELECT item FROM answers"); s.step();) out.insert(s.integer(0));
  return out;
}

void SweepStore::put(int64_t item, std::string_view answer, double wall_ms) {
  Transaction transaction(impl_->connection);
  Statement insert(impl_->connection, "INSERT OR REPLACE INTO answers(item, answer, wall_ms) VALUES(?,?,?)");
  insert.bind(1, item).bind(2, answer).bind(3, wall_ms).step();
  transaction.commit();
}

void SweepStore::each(const std::function<void(int64_t, const core::Json&)>& row) const {
  for (Statement s(impl_->connection, "SELECT item, answer FROM answers ORDER BY item"); s.step();) {
    const std::string answer = s.text(1);
    if (answer.size() > kMostAnswerBytes)
      throw core::Error(fmt::format("{}: the answer to item {} is over 1 MiB", impl_->connection.file(), s.integer(0)));
    row(s.integer(0), core::parse_json(answer, fmt::format("{}: item {}", impl_->connection.file(), s.integer(0))));
  }
}

}  // namespace drydock::configurator
