#include <doctest/doctest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "core/error.h"
#include "core/file.h"
#include "perfdb/database.h"
#include "perfdb/sqlite.h"

using namespace drydock;
using namespace drydock::perfdb;
namespace fs = std::filesystem;

namespace {

// A folder of its own that goes away with the test.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("drydock_db_" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  fs::path operator/(const char* name) const { return path_ / name; }

 private:
  fs::path path_;
};

core::Op stored_gemm(int64_t m) {
  return core::make_op(core::OpKind::gemm, core::Dtype::fp8, core::Dtype::fp8, {m, 64, 64});
}

Measurement row(int64_t m, double us, const char* date = "2026-01-01") {
  return {stored_gemm(m), {"h200_sxm", "trtllm", "1.0", "H200", "570", "1980", "cublas", date, "test"}, us, 0.5, 9};
}

void write_rows(Database& database, int64_t from, int64_t to) {
  database.write([&](const auto& add) {
    for (int64_t m = from; m < to; ++m) add(row(m, static_cast<double>(m)));
  });
}

int64_t count(const Database& database) {
  int64_t n = 0;
  database.read({}, [&](const Measurement&) { ++n; });
  return n;
}

std::string open_error(const fs::path& file, Access access = Access::read) {
  try {
    Database::open(file, access);
  } catch (const core::Error& error) {
    return error.what();
  }
  return "";
}

void run_sql(const fs::path& file, const char* sql) {
  sqlite3* db = nullptr;
  REQUIRE(sqlite3_open(file.c_str(), &db) == SQLITE_OK);
  REQUIRE(sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(db);
}

}  // namespace

TEST_CASE("rows and surfaces read back, filtered and in order") {
  const Folder folder;
  const fs::path file = folder / "a.db";
  {
    Database database = Database::open(file, Access::create);
    write_rows(database, 1, 4);
    database.write({{"h200_sxm", "vllm", "2", core::OpKind::moe, core::Dtype::nvfp4, core::Dtype::nvfp4, "v",
                     std::string("\0\1body", 6)}});
  }
  const Database database = Database::open(file, Access::read);
  std::vector<Measurement> rows;
  database.read({"h200_sxm", "trtllm", "1.0", core::OpKind::gemm}, [&](const Measurement& m) { rows.push_back(m); });
  REQUIRE(rows.size() == 3);
  CHECK(rows[1].op == stored_gemm(2));
  CHECK(rows[1].latency_us == 2);
  CHECK(rows[1].spread_us == 0.5);
  CHECK(rows[1].samples == 9);
  CHECK(rows[1].origin.driver == "570");
  database.read({"other", {}, {}, {}}, [](const Measurement&) { FAIL("another system's row"); });
  const auto surfaces = database.surfaces("h200_sxm", "");
  REQUIRE(surfaces.size() == 1);
  CHECK(surfaces[0].body == std::string("\0\1body", 6));
  CHECK(database.surfaces("h200_sxm", "trtllm").empty());
  const auto contents = database.contents();
  REQUIRE(contents.size() == 2);
  CHECK(contents[0].measurements == 3);
  CHECK(contents[1].surfaces == 1);
}

TEST_CASE("the same op and origin is replaced, another day's is kept beside it, and merge joins two files") {
  const Folder folder;
  Database a = Database::open(folder / "a.db", Access::create), b = Database::open(folder / "b.db", Access::create);
  write_rows(a, 1, 3);
  a.write([](const auto& add) { add(row(1, 10)); });
  CHECK(count(a) == 2);
  b.write([](const auto& add) {
    add(row(1, 20, "2026-02-02"));
    add(row(7, 7));
  });
  CHECK(a.merge(folder / "b.db") == 2);
  CHECK(count(a) == 4);
}

TEST_CASE("a file that is not a performance database gets one clear line") {
  const Folder folder;
  CHECK(open_error(folder / "none.db").ends_with(": no such performance database"));
  fs::create_directories(folder / "dir");
  CHECK(open_error(folder / "dir").ends_with(": is a folder; want a performance database file"));
  core::write_file(folder / "empty", "");
  CHECK(open_error(folder / "empty").ends_with(": is empty; want a performance database"));
  core::write_file(folder / "text", std::string(5000, 'x'));
  CHECK(open_error(folder / "text").ends_with(": is not a database; want a Drydock performance database"));
  run_sql(folder / "other.db", "CREATE TABLE t(x)");
  CHECK(open_error(folder / "other.db").ends_with("is a SQLite file but no Drydock performance database"));
  { Database::open(folder / "new.db", Access::create); }
  fs::copy_file(folder / "new.db", folder / "newer.db");
  run_sql(folder / "newer.db", "PRAGMA user_version = 99");
  CHECK(open_error(folder / "newer.db").ends_with("has schema version 99; this program reads 1"));
  fs::copy_file(folder / "new.db", folder / "less.db");
  run_sql(folder / "less.db", "DROP TABLE systems");
  CHECK(open_error(folder / "less.db").ends_with("table systems is missing"));
  fs::copy_file(folder / "new.db", folder / "wal.db");
  run_sql(folder / "wal.db", "PRAGMA journal_mode = WAL");
  CHECK(open_error(folder / "wal.db").find("is in WAL mode") != std::string::npos);
  CHECK(open_error("/dev/null").ends_with("is no regular file; want a performance database"));
  CHECK(open_error(folder / "new.db" / "x.db", Access::create) != "");
}

TEST_CASE("a file with other columns, a trigger or a view is refused") {
  const Folder folder;
  const char* const changes[] = {"ALTER TABLE systems ADD COLUMN more TEXT", "CREATE VIEW v AS SELECT 1",
                                 "CREATE TRIGGER t AFTER INSERT ON systems BEGIN DELETE FROM surfaces; END",
                                 "DROP TABLE systems; CREATE VIEW systems AS SELECT 1"};
  for (const char* change : changes) {
    CAPTURE(change);
    const fs::path file = folder / "a.db";
    fs::remove(file);
    { Database::open(file, Access::create); }
    CHECK(open_error(file) == "");
    run_sql(file, change);
    CHECK(open_error(file) != "");
  }
}

TEST_CASE("a journal that a killed writer left is undone by the next reader") {
  const Folder folder;
  const fs::path file = folder / "a.db", journal = folder / "a.db-journal";
  {
    Database database = Database::open(file, Access::create);
    write_rows(database, 1, 6000);
  }
  const pid_t child = ::fork();
  if (child == 0) {
    // A cache of ten pages spills changed ones into the file long before the transaction ends.
    sqlite3* db = nullptr;
    sqlite3_open(file.c_str(), &db);
    sqlite3_exec(db, "PRAGMA cache_size = 10; BEGIN; UPDATE measurements SET latency_us = 77", nullptr, nullptr,
                 nullptr);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(fs::exists(journal));
  REQUIRE(fs::file_size(journal) > 0);
  const Database database = Database::open(file, Access::read);
  double sum = 0;
  database.read({}, [&](const Measurement& m) { sum += m.latency_us; });
  CHECK(sum == 5999.0 * 6000 / 2);  // latencies were 1 .. 5999
  CHECK(!fs::exists(journal));
}

TEST_CASE("a merge is whole or not at all, and a file can't be merged into itself") {
  const Folder folder;
  Database a = Database::open(folder / "a.db", Access::create), b = Database::open(folder / "b.db", Access::create);
  write_rows(a, 1, 3);
  write_rows(b, 1, 10);
  b.write({{"h200_sxm", "vllm", "2", core::OpKind::moe, core::Dtype::nvfp4, core::Dtype::nvfp4, "v", "body"}});
  CHECK_THROWS_AS(a.merge(folder / "a.db"), core::Error);
  run_sql(folder / "b.db", "UPDATE surfaces SET kind = 'unknown'");
  CHECK_THROWS_AS(a.merge(folder / "b.db"), core::Error);
  CHECK(count(a) == 2);
  run_sql(folder / "b.db", "UPDATE surfaces SET kind = 'moe'");
  CHECK(a.merge(folder / "b.db") == 10);  // nine rows, two of them there before, and a surface
  CHECK(count(a) == 9);
  CHECK(a.surfaces("h200_sxm", "vllm").size() == 1);
}

TEST_CASE("a damaged page is found on opening") {
  const Folder folder;
  const fs::path file = folder / "a.db";
  {
    Database database = Database::open(file, Access::create);
    write_rows(database, 1, 3000);
  }
  std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
  f.seekp(static_cast<std::streamoff>(fs::file_size(file)) - 20'000);
  f << std::string(4000, '\x5a');
  f.close();
  const std::string error = open_error(file);
  CHECK(error.find(file.string()) == 0);
  CHECK(error.find('\n') == std::string::npos);
}

TEST_CASE("rows that no measurement can be are refused, on the way in and on the way out") {
  const Folder folder;
  const fs::path file = folder / "a.db";
  Database database = Database::open(file, Access::create);
  for (const double us : {0.0, -1.0, 1e10, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_AS(database.write([&](const auto& add) {
      add(row(1, 5));
      add(row(2, us));
    }),
                    core::Error);
  CHECK(count(database) == 0);  // the good row went with the bad one
  write_rows(database, 1, 2);
  run_sql(file, "UPDATE measurements SET op = 'gemm/fp8/m=1'");
  CHECK_THROWS_AS(count(database), core::Error);
  for (const char* bad : {"latency_us = -1", "latency_us = 'fast'", "latency_us = 9e999", "samples = -1",
                          "kind = 'moe'", "op = zeroblob(1000000)"}) {
    CAPTURE(bad);
    run_sql(file, "UPDATE measurements SET op = 'gemm/fp8/m=1,n=2,k=3', latency_us = 1, samples = 1, kind = 'gemm'");
    CHECK(count(database) == 1);
    run_sql(file, (std::string("UPDATE measurements SET ") + bad).c_str());
    CHECK_THROWS_AS(count(database), core::Error);
  }
  Measurement two_lines = row(1, 5);
  two_lines.origin.gpu = "H200\nSXM";
  CHECK_THROWS_AS(database.write([&](const auto& add) { add(two_lines); }), core::Error);
}

TEST_CASE("readers open a read-only file and leave nothing beside it") {
  const Folder folder;
  const fs::path file = folder / "a.db";
  {
    Database database = Database::open(file, Access::create);
    write_rows(database, 1, 10);
  }
  fs::permissions(file, fs::perms::owner_read);
  CHECK(count(Database::open(file, Access::read)) == 9);
  CHECK(std::distance(fs::directory_iterator(file.parent_path()), fs::directory_iterator()) == 1);
}

TEST_CASE("a database that another process is writing is told in one line, and nothing of it is lost") {
  const Folder folder;
  const fs::path file = folder / "a.db";
  {
    Database database = Database::open(file, Access::create);
    write_rows(database, 1, 4);
  }
  {
    Connection other(file, SQLITE_OPEN_READWRITE), ours(file, SQLITE_OPEN_READWRITE);
    sqlite3_busy_timeout(ours.get(), 0);  // the wait of ten seconds is for real ones
    other.run("BEGIN EXCLUSIVE");
    const std::string want = file.string() + ": is being written by another process; try again later";
    CHECK_THROWS_WITH_AS(Transaction{ours}, want.c_str(), core::Error);
    CHECK_THROWS_WITH_AS(Statement(ours, "SELECT count(*) FROM measurements"), want.c_str(), core::Error);
  }
  CHECK(count(Database::open(file, Access::read)) == 3);
}

TEST_CASE("a writer killed at any moment leaves all of a transaction or none of it") {
  const Folder folder;
  const fs::path file = folder / "a.db";
  constexpr int64_t kRows = 4000;
  {
    Database database = Database::open(file, Access::create);
    write_rows(database, 1, kRows + 1);
  }
  int killed = 0;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        Database database = Database::open(file, Access::write);
        for (int64_t batch = 1;; ++batch) write_rows(database, batch * 100'000, batch * 100'000 + kRows);
      } catch (...) {
      }
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(3000 + 7919 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    killed += WIFSIGNALED(status);
    // Opening undoes an unfinished transaction; every batch is there whole or not at all.
    CHECK(count(Database::open(file, Access::read)) % kRows == 0);
  }
  CHECK(killed == 12);
}
