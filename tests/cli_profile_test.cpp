#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/cli_profile_bed.h"

using namespace drydock::tests;
using drydock::perfdb::Access;
using drydock::perfdb::Database;

TEST_CASE("a campaign fills a database, and the same again goes on") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  const nlohmann::json first =
      profile_json(run_drydock(with(simulated(scratch, db), {"--json", "--system-out", scratch / "silicon.json"})));
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
  const Run asked =
      run_drydock({"recommend", "--model", scratch / "model.json", "--system", scratch / "silicon.json", "--db", db,
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
  const std::string db = scratch / "out.db", model = scratch.write("model.json", kProfiledModel);
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

TEST_CASE("a device that is lost ends the campaign, and what was measured is kept") {
  const Scratch scratch;
  const std::string db = scratch / "out.db";
  // Decoding comes after the heavier families' first points.
  const Arguments losing = with(simulated(scratch, db), {"--fault", "decode_attention=lost"});
  const Run run = run_drydock(with(losing, {"--json"}));
  CAPTURE(run.err);
  CHECK(run.exit_code == 2);
  CHECK(lines(run.err) == 1);
  CHECK(run.err.find("the simulated device is lost; it can't be opened again; ") != std::string::npos);
  const auto told = nlohmann::json::parse(run.out);
  CHECK(told["ending"] == "device_lost");
  REQUIRE(told["failed"].size() == 1);
  CHECK(told["failed"][0]["op"].get<std::string>().starts_with("decode_attention/"));
  CHECK(told["failed"][0]["reason"].get<std::string>().starts_with("took the device along: "));
  const int64_t kept = told["points"];
  CHECK(kept > 0);
  CHECK(rows(db) == kept);
  CHECK(told["surfaces"] > 0);  // fitted to what there is
  // The same command goes on once the device is back.
  const nlohmann::json again = profile_json(run_drydock(with(simulated(scratch, db), {"--json"})));
  CHECK(again["reused"] == kept);
  CHECK(again["ending"] == "target_met");
  // Lost with its first op it has measured nothing, and leaves no reason to look for.
  profile_refused(with(simulated(scratch, scratch / "none.db"), {"--fault", "/=lost"}),
                  "nothing could be measured: the simulated device is lost");
}

TEST_CASE("the ops of a database are measured again, for db diff") {
  const Scratch scratch;
  const std::string base = scratch / "base.db", now = scratch / "new.db";
  REQUIRE(run_drydock(simulated(scratch, base)).exit_code == 0);
  const auto again = [&](const Arguments& more) {
    return with({"profile", "--target", "simulated", "--system", "h200_sxm", "--ops", base, "--db", now}, more);
  };
  const nlohmann::json told = profile_json(run_drydock(again({"--seed", "2", "--rounds", "2", "--json"})));
  CHECK(told["ending"] == "all_measured");
  CHECK(told["points"] == rows(base));
  CHECK(rows(now) == rows(base));
  const Run diff = run_drydock({"db", "diff", base, now, "--json"});
  CHECK(diff.exit_code == 0);
  const auto report = nlohmann::json::parse(diff.out);
  CHECK(report["paired"] == rows(base));
  CHECK(report["only_base"].empty());
  // One family of them fails; the others are measured.
  const nlohmann::json partly = profile_json(run_drydock(again({"--fault", "decode_attention=error", "--json"})));
  CHECK(partly["points"].get<int64_t>() + std::ssize(partly["failed"]) == rows(base));
  CHECK(!partly["failed"].empty());

  profile_refused(again({"--rounds", "0"}), "--rounds");
  profile_refused(again({"--model", scratch / "model.json"}), "--ops: goes without --model");
  profile_refused({"profile", "--target", "simulated", "--system", "h100_sxm", "--ops", base, "--db", now},
                  "none of h100_sxm_simulated");
  profile_refused({"profile", "--target", "cpu", "--ops", base, "--db", now}, "want --target simulated");
  profile_refused({"profile", "--target", "cpu", "--ops", scratch / "no.db", "--db", now}, "no.db");
}

TEST_CASE("times of simulated silicon answer for simulated silicon alone") {
  const Scratch scratch;
  const std::string db = scratch / "out.db", likeness = scratch / "silicon.json";
  REQUIRE(run_drydock(with(simulated(scratch, db), {"--system-out", likeness})).exit_code == 0);
  const auto ask = [&](const std::string& system) {
    return Arguments{"recommend", "--model",   scratch / "model.json",
                     "--system",  system,      "--db",
                     db,          "--backend", "drydock",
                     "--gpus",    "1",         "--isl",
                     "100",       "--osl",     "20",
                     "--json"};
  };
  const Run asked = run_drydock(ask(likeness));
  CAPTURE(asked.err);
  CHECK(asked.exit_code == 0);
  profile_refused(ask("h200_sxm"), "has times of simulated silicon alone, h200_sxm_simulated");
  // Under the name of the real machine they are refused as well, beside real ones or not.
  Database mixed = Database::open(db, Access::write);
  mixed.write([&](const auto& add) {
    drydock::perfdb::Origin origin;
    origin.system = "h200_sxm";
    origin.backend = "drydock";
    origin.version = "simulated-1";
    add({drydock::core::parse_op_key("gemm/bf16/m=1,n=64,k=64"), origin, 3.0, 0, 0});
    origin.version = "cuda-1";
    add({drydock::core::parse_op_key("gemm/bf16/m=2,n=64,k=64"), origin, 3.0, 0, 0});
  });
  profile_refused(ask("h200_sxm"), "times of simulated silicon under the name of h200_sxm");
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
