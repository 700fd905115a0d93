#include "perfdb/sqlite.h"

#include "core/error.h"

namespace drydock::perfdb {

Connection::Connection(const std::filesystem::path& file, int flags) : file_(file.string()) {
  sqlite3* raw = nullptr;
  const int status = sqlite3_open_v2(file_.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  handle_.reset(raw);
  if (status != SQLITE_OK) fail("can't be opened");
  sqlite3_extended_result_codes(raw, 1);
  // A hostile file must not make the parser or the pager run wild.
  sqlite3_limit(raw, SQLITE_LIMIT_LENGTH, 64 << 20);
  sqlite3_limit(raw, SQLITE_LIMIT_SQL_LENGTH, 1 << 20);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_busy_timeout(raw, 10'000);
}

namespace {

// What a user can do about it; empty: SQLite's own words must do.
std::string explain(int extended_status) {
  if (extended_status == SQLITE_READONLY_ROLLBACK)
    return "a writer was killed and what it left half done must be undone: open it once where it can be written";
  if (extended_status == SQLITE_IOERR_WRITE)
    return "can't be written: the disk fails, or a limit on the size of files (ulimit -f)";
  switch (extended_status & 0xff) {
    case SQLITE_NOTADB:
      return "is not a database; want a Drydock performance database";
    case SQLITE_CORRUPT:
      return "is corrupt; want an intact copy of it";
    case SQLITE_BUSY:
      return "is being written by another process; try again later";
    case SQLITE_READONLY:
      return "can't be written";
    case SQLITE_FULL:
      return "can't be written: the disk is full";
  }
  return "";
}

}  // namespace

void Connection::fail(std::string_view what) const {
  if (!handle_) throw core::Error(file_ + ": " + std::string(what) + ": out of memory");
  const std::string known = explain(sqlite3_extended_errcode(handle_.get()));
  if (!known.empty()) throw core::Error(file_ + ": " + known);
  throw core::Error(file_ + ": " + std::string(what) + ": " + sqlite3_errmsg(handle_.get()));
}

void Connection::run(const char* sql) {
  if (sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail("can't be used");
}

Statement::Statement(const Connection& connection, std::string_view sql) : connection_(&connection) {
  sqlite3_stmt* raw = nullptr;
  check(sqlite3_prepare_v2(connection.get(), sql.data(), static_cast<int>(sql.size()), &raw, nullptr));
  handle_.reset(raw);
}

void Statement::check(int status) const {
  if (status != SQLITE_OK && status != SQLITE_DONE && status != SQLITE_ROW) connection_->fail("can't be used");
}

Statement& Statement::bind(int index, std::string_view text) {
  check(sqlite3_bind_text64(handle_.get(), index, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  return *this;
}
Statement& Statement::bind(int index, int64_t value) {
  check(sqlite3_bind_int64(handle_.get(), index, value));
  return *this;
}
Statement& Statement::bind(int index, double value) {
  check(sqlite3_bind_double(handle_.get(), index, value));
  return *this;
}
Statement& Statement::bind_blob(int index, std::string_view bytes) {
  check(sqlite3_bind_blob64(handle_.get(), index, bytes.data(), bytes.size(), SQLITE_TRANSIENT));
  return *this;
}

bool Statement::step() {
  const int status = sqlite3_step(handle_.get());
  check(status);
  return status == SQLITE_ROW;
}

void Statement::reset() { check(sqlite3_reset(handle_.get())); }

std::string Statement::text(int column) const {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(handle_.get(), column));
  return bytes ? std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(handle_.get(), column))) : std::string();
}

std::string Statement::blob(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(handle_.get(), column));
  return bytes ? std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(handle_.get(), column))) : std::string();
}

Transaction::Transaction(Connection& connection) : connection_(connection) { connection_.run("BEGIN IMMEDIATE"); }

Transaction::~Transaction() {
  if (open_) sqlite3_exec(connection_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void Transaction::commit() {
  connection_.run("COMMIT");
  open_ = false;
}

}  // namespace drydock::perfdb
