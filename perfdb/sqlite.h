#pragma once
// SQLite's C interface with errors as exceptions and handles that close themselves; a part of the database.
#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace drydock::perfdb {

class Connection {
 public:
  // `flags`: of sqlite3_open_v2. Throws core::Error naming the file.
  Connection(const std::filesystem::path& file, int flags);
  void run(const char* sql);  // statements without a result; throws core::Error
  sqlite3* get() const { return handle_.get(); }
  const std::string& file() const { return file_; }
  // core::Error "<file>: " and what to do about the last failure, or `what` and SQLite's words.
  [[noreturn]] void fail(std::string_view what) const;

 private:
  std::string file_;
  std::unique_ptr<sqlite3, int (*)(sqlite3*)> handle_{nullptr, sqlite3_close_v2};
};

// One prepared statement; bind counts from 1, columns from 0.
class Statement {
 public:
  Statement(const Connection& connection, std::string_view sql);
  Statement& bind(int index, std::string_view text);  // copied
  Statement& bind(int index, int64_t value);
  Statement& bind(int index, double value);
  Statement& bind_blob(int index, std::string_view bytes);
  bool step();   // true: a row is there
  void reset();  // to bind and run again
  std::string text(int column) const;
  int64_t integer(int column) const { return sqlite3_column_int64(handle_.get(), column); }
  double number(int column) const { return sqlite3_column_double(handle_.get(), column); }
  std::string blob(int column) const;

 private:
  void check(int status) const;
  const Connection* connection_;
  std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> handle_{nullptr, sqlite3_finalize};
};

// Rolls back unless committed.
class Transaction {
 public:
  explicit Transaction(Connection& connection);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Connection& connection_;
  bool open_ = true;
};

}  // namespace drydock::perfdb
