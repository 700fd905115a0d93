#include <doctest/doctest.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/file.h"
#include "perfdb/database.h"
#include "tests/run.h"

using namespace drydock::tests;
using drydock::perfdb::Access;
using drydock::perfdb::Database;

namespace {

using Arguments = std::vector<std::string>;

const char* kModel =
    R"({"model_type":"llama","hidden_size":64,"vocab_size":1000,"max_position_embeddings":4096,"num_hidden_layers":2,)"
    R"("num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":128})";

// A campaign on simulated silicon that ends after a few points a family.
Arguments simulated(const Scratch& scratch, const std::string& db) {
  return {"profile",
          "--model",
          scratch.write("model.json", kModel),
          "--target",
          "simulated",
          "--system",
          "h200_sxm",
          "--budget",
          "20s",
          "--target-error",
          "45%",
          "--db",
          db};
}

Arguments with(Arguments all, const Arguments& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

nlohmann::json profile_json(const Run& run) {
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  return nlohmann::json::parse(run.out);
}

void profile_refused(const Arguments& arguments, const std::string& names) {
  const Run run = run_drydock(arguments);
  CAPTURE(run.err);
  CAPTURE(names);
  CHECK(run.exit_code == 2);
  CHECK(run.out == "");
  CHECK(lines(run.err) == 1);
  CHECK(run.err.starts_with("drydock: "));
  CHECK(run.err.find(names) != std::string::npos);
}

int64_t rows(const std::string& db) {
  int64_t count = 0;
  Database::open(db, Access::read).read({}, [&](const auto&) { ++count; });
  return count;
}

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

// Mounts a disk of `bytes` over `folder`, for this process and its children only. Needs rights that not all have.
bool mount_small_disk(const std::filesystem::path& folder, uintmax_t bytes) {
  if (::unshare(CLONE_NEWNS) != 0) {  // not root; it can be that of a namespace of its own
    const std::string uid = "0 " + std::to_string(::getuid()) + " 1", gid = "0 " + std::to_string(::getgid()) + " 1";
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    for (const auto& [file, text] : {std::pair{"setgroups", std::string("deny")}, {"uid_map", uid}, {"gid_map", gid}})
      if (!(std::ofstream(std::string("/proc/self/") + file) << text << std::flush)) return false;
  }
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return ::mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0;
}

// Runs the campaign with a copy of `db` on a disk that has `free_bytes` left; nullopt where none can be made.
std::optional<nlohmann::json> run_on_full_disk(const Scratch& scratch, const std::string& db, uintmax_t free_bytes) {
  const std::filesystem::path disk = scratch.path() / "disk";
  std::filesystem::create_directory(disk);
  const pid_t child = ::fork();
  if (child == 0) try {
      if (!mount_small_disk(disk, std::filesystem::file_size(db) + free_bytes)) ::_exit(77);
      const std::string copy = disk / "out.db";
      std::filesystem::copy_file(db, copy);
      const Run run = run_drydock(with(simulated(scratch, copy), {"--max-context", "2048"}));
      const nlohmann::json told{{"exit_code", run.exit_code}, {"out", run.out}, {"err", run.err}, {"rows", rows(copy)}};
      scratch.write("told.json", told.dump());
      ::_exit(0);
    } catch (...) {
      ::_exit(1);
    }
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) return std::nullopt;
  REQUIRE(WEXITSTATUS(status) == 0);
  return nlohmann::json::parse(drydock::core::read_file(scratch.path() / "told.json"));
}

}  // namespace

TEST_CASE("a campaign fills a database, and the same again goes on") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  const nlohmann::json first = profile_json(run_drydock(with(simulated(scratch, db), {"--json"})));
  CHECK(first["schema"] == "drydock.profile");
  CHECK(first["ending"] == "target_met");
  CHECK(first["points"].get<int64_t>() > 20);
  CHECK(first["families"].size() == 4);
  CHECK(rows(db) == first["points"].get<int64_t>());
  CHECK(first["reused"] == 0);
  const nlohmann::json again = profile_json(run_drydock(with(simulated(scratch, db), {"--json"})));
  CHECK(again["reused"] == first["points"]);
  CHECK(again["points"] == 0);
  const Run told = run_drydock(simulated(scratch, db));
  CHECK(told.exit_code == 0);
  CHECK(told.err == "");
  CHECK(told.out.find("0 points measured and") != std::string::npos);
  // Predictions rest on it.
  const Run asked = run_drydock({"recommend", "--model", scratch / "model.json", "--system", "h200_sxm", "--db", db,
                                 "--backend", "drydock", "--gpus", "1", "--isl", "100", "--osl", "20", "--json"});
  CAPTURE(asked.err);
  CHECK(asked.exit_code == 0);
}

TEST_CASE("a dry run tells the plan and touches nothing") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  const nlohmann::json plan =
      profile_json(run_drydock(with(simulated(scratch, db), {"--dry-run", "--tp", "1,2", "--json"})));
  CHECK(plan["schema"] == "drydock.profile.plan");
  CHECK(plan["deployments"] == 2);
  CHECK(plan["families"].size() == 6);
  CHECK(plan["points"].get<int64_t>() > 0);
  CHECK(!std::filesystem::exists(db));
  // A GPU need not be there to plan for one.
  Arguments cuda = simulated(scratch, db);
  *(std::find(cuda.begin(), cuda.end(), "simulated")) = "cuda";
  CHECK(run_drydock(with(cuda, {"--dry-run"})).exit_code == 0);
}

TEST_CASE("failures cost ops, not the campaign") {
  const Scratch scratch;
  const nlohmann::json report =
      profile_json(run_drydock(with(simulated(scratch, scratch / "out.db"),
                                    {"--fault", "prefill_attention=crash", "--fault", "elementwise=error", "--json"})));
  CHECK(report["failed"].size() == 10);  // five in a row of each
  CHECK(report["points"].get<int64_t>() > 10);
  profile_refused(with(simulated(scratch, scratch / "none.db"),
                       {"--fault", "gemm=oom", "--fault", "attention=error", "--fault", "elementwise=crash"}),
                  "nothing could be measured");
}

TEST_CASE("bad input of a campaign is one line, and leaves nothing behind") {
  const Scratch scratch;
  const std::string db = scratch / "out.db", model = scratch.write("model.json", kModel);
  const auto with_flag = [&](const std::string& flag, const std::string& value) {
    Arguments all = simulated(scratch, db);
    const auto at = std::find(all.begin(), all.end(), flag);
    if (at == all.end()) return with(all, {flag, value});
    *(at + 1) = value;
    return all;
  };
  profile_refused({"profile"}, "--model");
  profile_refused({"profile", "--model", model, "--target", "cpu"}, "--db");
  profile_refused({"profile", "--model", model, "--all-models", "--db", db}, "give one of them");
  // No plug-in, no driver or no such device, by what this build and machine have.
  profile_refused({"profile", "--model", model, "--db", db, "--device", "63"}, "--target cuda: ");
  profile_refused({"profile", "--model", model, "--db", db, "--target", "cpu", "--system", "h200_sxm"},
                  "this device is another");
  profile_refused({"profile", "--model", model, "--target", "simulated", "--db", db}, "--system");
  profile_refused(with_flag("--target", "gpu"), "--target 'gpu'");
  profile_refused(with_flag("--model", "no such model"), "no such model");
  profile_refused(with_flag("--system", "h201_sxm"), "did you mean");
  profile_refused(with_flag("--precision", "fp7"), "fp7");
  for (const std::string value : {"0", "-1", "x", "1,,2", "99999999999"})
    profile_refused(with_flag("--tp", value), "--tp");
  profile_refused(with_flag("--tp", "3"), "4 heads do not divide over tp 3");
  for (const std::string value : {"0", "-3m", "3 parsecs", "1e9h", "nan"})
    profile_refused(with_flag("--budget", value), "--budget");
  for (const std::string value : {"0", "-5%", "60%", "five"})
    profile_refused(with_flag("--target-error", value), "--target-error");
  for (const std::string flag : {"--max-tokens", "--max-context", "--max-batch"})
    for (const std::string value : {"0", "-1", "9999999999999"}) profile_refused(with_flag(flag, value), flag);
  profile_refused(with_flag("--fault", "gemm"), "--fault");
  profile_refused(with_flag("--db", scratch.path().string()), "is a folder");
  profile_refused(with_flag("--db", scratch / "no/such/out.db"), "out.db");
  profile_refused(with_flag("--db", scratch.write("text.db", "hello")), "text.db");
  profile_refused(with_flag("--system-out", scratch / "no/such/host.json"), "host.json");
  CHECK(!std::filesystem::exists(db));
}

TEST_CASE("a database that can't be written is told before anything is measured") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  REQUIRE(run_drydock(simulated(scratch, db)).exit_code == 0);
  const int64_t before = rows(db);
  if (::getuid() != 0) {
    std::filesystem::permissions(db, std::filesystem::perms::owner_read);
    profile_refused(simulated(scratch, db), "can't be written");
    std::filesystem::permissions(db, std::filesystem::perms::owner_all);
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

TEST_CASE("energy and the split of ops over kernels are told") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  const nlohmann::json told = profile_json(run_drydock(with(simulated(scratch, db), {"--json"})));
  REQUIRE(!told["energy"].empty());
  CHECK(told["energy"].size() == told["points"]);
  for (const nlohmann::json& e : told["energy"])
    CHECK(e["watts"].get<double>() == doctest::Approx(e["joules"].get<double>() / e["us"].get<double>() * 1e6));
  REQUIRE(!told["parts"].empty());
  CHECK(told["parts"][0]["parts"][0]["name"] == "attend");
  // Resumed, nothing is measured, and the split rests on what rows say.
  const Run again = run_drydock(with(simulated(scratch, db), {"--energy"}));
  CHECK(again.exit_code == 0);
  CHECK(again.out.find("attend 90%, combine 10%") != std::string::npos);
  CHECK(again.out.find("--energy: no op was measured now") != std::string::npos);
}

TEST_CASE("--energy samples long enough for a GPU's energy counter") {
  const Scratch scratch;
  Arguments slow = simulated(scratch, scratch / "out.db");
  *(std::find(slow.begin(), slow.end(), "20s")) = "4s";
  const nlohmann::json told = profile_json(run_drydock(with(slow, {"--energy", "--json"})));
  CHECK(told["points"].get<int64_t>() >= 1);
  // Simulated samples take no time, so that their number ends them; on a device 1.2 s do.
  CHECK(told["energy"].size() == told["points"]);
}
