#include <doctest/doctest.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/file.h"
#include "tests/cli_profile_bed.h"

using namespace drydock::tests;

namespace {

// A write that fails half way: an answer in one line, and the rows of before are all there.
void is_full(const nlohmann::json& told, const std::string& reason, int64_t rows_before) {
  const std::string err = told["err"];
  CAPTURE(err);
  CHECK(told["exit_code"] == 2);
  CHECK(told["out"] == "");
  CHECK(lines(err) == 1);
  CHECK(err.find(reason) != std::string::npos);
  CHECK(told["rows"] == rows_before);
}

// Gives this process and its children mounts of their own. Needs rights that not all have.
bool own_mounts() {
  if (::unshare(CLONE_NEWNS) != 0) {  // not root; it can be that of a namespace of its own
    const std::string uid = "0 " + std::to_string(::getuid()) + " 1", gid = "0 " + std::to_string(::getgid()) + " 1";
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    for (const auto& [file, text] : {std::pair{"setgroups", std::string("deny")}, {"uid_map", uid}, {"gid_map", gid}})
      if (!(std::ofstream(std::string("/proc/self/") + file) << text << std::flush)) return false;
  }
  return ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

// Mounts a disk of `bytes` over `folder`, for this process and its children only.
bool mount_small_disk(const std::filesystem::path& folder, uintmax_t bytes) {
  return own_mounts() && ::mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0;
}

// What is in `folder` can be read and not written, by this process and its children.
bool mount_read_only(const std::filesystem::path& folder) {
  return own_mounts() && ::mount(folder.c_str(), folder.c_str(), nullptr, MS_BIND, nullptr) == 0 &&
         ::mount(nullptr, folder.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) == 0;
}

// Is somebody who owns nothing, and can still run `drydock`.
bool become_nobody() {
  constexpr uid_t kNobody = 65534;
  const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "drydock";
  return ::setgid(kNobody) == 0 && ::setuid(kNobody) == 0 && ::access(program.c_str(), X_OK) == 0;
}

// What `act` returns, from a process of its own; nullopt where `prepare` can't be done there.
std::optional<nlohmann::json> in_child(const Scratch& scratch, const std::function<bool()>& prepare,
                                       const std::function<nlohmann::json()>& act) {
  const std::string file = scratch.write("told.json", "");
  std::filesystem::permissions(file, std::filesystem::perms(0666));  // whoever the child becomes
  const pid_t child = ::fork();
  if (child == 0) try {
      std::ofstream told(file);
      if (!prepare()) ::_exit(77);
      told << act().dump() << std::flush;
      ::_exit(told ? 0 : 1);
    } catch (...) {
      ::_exit(1);
    }
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) return std::nullopt;
  REQUIRE(WEXITSTATUS(status) == 0);
  return nlohmann::json::parse(drydock::core::read_file(file));
}

// The campaign with a copy of `db` on a disk that has `free_bytes` left; nullopt where none can be made.
std::optional<nlohmann::json> run_on_full_disk(const Scratch& scratch, const std::string& db, uintmax_t free_bytes) {
  const std::filesystem::path disk = scratch.path() / "disk";
  std::filesystem::create_directory(disk);
  const std::string copy = disk / "out.db";
  return in_child(
      scratch, [&] { return mount_small_disk(disk, std::filesystem::file_size(db) + free_bytes); },
      [&] {
        std::filesystem::copy_file(db, copy);
        const Run run = run_drydock(with(simulated(scratch, copy), {"--max-context", "2048"}));
        return nlohmann::json{{"exit_code", run.exit_code}, {"out", run.out}, {"err", run.err}, {"rows", rows(copy)}};
      });
}

// The campaign with a database that `prepare` keeps from being written, from a process of its own.
void is_told_read_only(const Scratch& scratch, const std::string& db, const char* how,
                       const std::function<bool()>& prepare) {
  const Arguments arguments = simulated(scratch, db);
  const auto told = in_child(scratch, prepare, [&] {
    const Run run = run_drydock(arguments);
    return nlohmann::json{{"exit_code", run.exit_code}, {"out", run.out}, {"err", run.err}};
  });
  if (!told) {
    MESSAGE("SKIPPED: a database that can't be written, ", how, ": not to be had here");
    return;
  }
  const std::string err = (*told)["err"];
  CAPTURE(how);
  CAPTURE(err);
  CHECK((*told)["exit_code"] == 2);
  CHECK((*told)["out"] == "");
  CHECK(lines(err) == 1);
  CHECK(err.find("can't be written") != std::string::npos);
}

}  // namespace

TEST_CASE("a database that can't be written is told before anything is measured") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  REQUIRE(run_drydock(simulated(scratch, db)).exit_code == 0);
  const int64_t before = rows(db);
  is_told_read_only(scratch, db, "by its file system", [&] { return mount_read_only(scratch.path()); });
  std::filesystem::permissions(db, std::filesystem::perms(0444));
  if (::getuid() == 0) {  // may write whatever permissions say
    is_told_read_only(scratch, db, "by its permissions", become_nobody);
  } else {
    profile_refused(simulated(scratch, db), "can't be written");
  }
  CHECK(rows(db) == before);
}

TEST_CASE("a full disk ends a campaign in one line and costs no row") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  REQUIRE(run_drydock(simulated(scratch, db)).exit_code == 0);
  // Less than the journal of one row takes, which holds every page that changes.
  constexpr uintmax_t kFree = 20'000;
  if (const auto told = run_on_full_disk(scratch, db, kFree))
    is_full(*told, "the disk is full", rows(db));
  else
    MESSAGE("SKIPPED: no file system can be mounted here, so that no disk can be full");
}

TEST_CASE("a limit on file sizes ends a campaign in one line and costs no row") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  REQUIRE(run_drydock(simulated(scratch, db)).exit_code == 0);
  const int64_t before = rows(db);
  rlimit old{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
  const rlimit small{20'000, old.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Run run = run_drydock(with(simulated(scratch, db), {"--max-context", "2048"}));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &old) == 0);
  is_full({{"exit_code", run.exit_code}, {"out", run.out}, {"err", run.err}, {"rows", rows(db)}}, "ulimit -f", before);
}

TEST_CASE("a database that another process writes is told in one line and keeps its rows") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  REQUIRE(run_drydock(simulated(scratch, db)).exit_code == 0);
  const int64_t before = rows(db);
  sqlite3* other = nullptr;
  REQUIRE(sqlite3_open(db.c_str(), &other) == SQLITE_OK);
  REQUIRE(sqlite3_exec(other, "BEGIN EXCLUSIVE", nullptr, nullptr, nullptr) == SQLITE_OK);
  profile_refused(simulated(scratch, db), "is being written by another process");  // after ten seconds, without work
  sqlite3_close(other);
  CHECK(rows(db) == before);
}
