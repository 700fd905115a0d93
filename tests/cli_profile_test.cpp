#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "perfdb/database.h"
#include "tests/run.h"

using namespace drydock::tests;
using drydock::perfdb::Access;
using drydock::perfdb::Database;
using nlohmann::json;

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

json json_of(const Run& run) {
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  return json::parse(run.out);
}

void refused(const Arguments& arguments, const std::string& names) {
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

}  // namespace

TEST_CASE("a campaign fills a database, and the same again goes on") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  const json first = json_of(run_drydock(with(simulated(scratch, db), {"--json"})));
  CHECK(first["schema"] == "drydock.profile");
  CHECK(first["ending"] == "target_met");
  CHECK(first["points"].get<int64_t>() > 20);
  CHECK(first["families"].size() == 4);
  CHECK(rows(db) == first["points"].get<int64_t>());
  CHECK(first["reused"] == 0);
  const json again = json_of(run_drydock(with(simulated(scratch, db), {"--json"})));
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
  const json plan = json_of(run_drydock(with(simulated(scratch, db), {"--dry-run", "--tp", "1,2", "--json"})));
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
  const json report =
      json_of(run_drydock(with(simulated(scratch, scratch / "out.db"),
                               {"--fault", "prefill_attention=crash", "--fault", "elementwise=error", "--json"})));
  CHECK(report["failed"].size() == 10);  // five in a row of each
  CHECK(report["points"].get<int64_t>() > 10);
  refused(with(simulated(scratch, scratch / "none.db"),
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
  refused({"profile"}, "--model");
  refused({"profile", "--model", model, "--target", "cpu"}, "--db");
  refused({"profile", "--model", model, "--all-models", "--db", db}, "give one of them");
  refused({"profile", "--model", model, "--db", db}, "libdrydock_cuda.so is not there");
  refused({"profile", "--model", model, "--target", "simulated", "--db", db}, "--system");
  refused(with_flag("--target", "gpu"), "--target 'gpu'");
  refused(with_flag("--model", "no such model"), "no such model");
  refused(with_flag("--system", "h201_sxm"), "did you mean");
  refused(with_flag("--precision", "fp7"), "fp7");
  for (const std::string value : {"0", "-1", "x", "1,,2", "99999999999"}) refused(with_flag("--tp", value), "--tp");
  refused(with_flag("--tp", "3"), "4 heads do not divide over tp 3");
  for (const std::string value : {"0", "-3m", "3 parsecs", "1e9h", "nan"})
    refused(with_flag("--budget", value), "--budget");
  for (const std::string value : {"0", "-5%", "60%", "five"})
    refused(with_flag("--target-error", value), "--target-error");
  for (const std::string flag : {"--max-tokens", "--max-context", "--max-batch"})
    for (const std::string value : {"0", "-1", "9999999999999"}) refused(with_flag(flag, value), flag);
  refused(with_flag("--fault", "gemm"), "--fault");
  refused(with_flag("--db", scratch.path().string()), "is a folder");
  refused(with_flag("--db", scratch / "no/such/out.db"), "out.db");
  refused(with_flag("--db", scratch.write("text.db", "hello")), "text.db");
  refused(with_flag("--system-out", scratch / "no/such/host.json"), "host.json");
  CHECK(!std::filesystem::exists(db));
}

TEST_CASE("a database that can't be written is told before anything is measured") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  REQUIRE(run_drydock(simulated(scratch, db)).exit_code == 0);
  const int64_t before = rows(db);
  if (::getuid() != 0) {
    std::filesystem::permissions(db, std::filesystem::perms::owner_read);
    refused(simulated(scratch, db), "can't be written");
    std::filesystem::permissions(db, std::filesystem::perms::owner_all);
  }
  CHECK(rows(db) == before);
}
