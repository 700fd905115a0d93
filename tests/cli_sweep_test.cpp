#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <thread>

#include "core/csv.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/random.h"
#include "perfdb/sqlite.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::tests;
namespace fs = std::filesystem;

namespace {

// 2 systems x 2 backends x 2 numbers of GPUs x 3 workloads x 2 targets, some 15 ms each; a third is refused at once.
constexpr const char* kQuickSweep =
    "models: [Qwen/Qwen3-8B]\nsystems: [h100_sxm, l40s]\nbackend: [vllm, sglang]\ngpus: [8, 16]\n"
    "mode: agg\n"
    "workloads: [{isl: 500, osl: 50}, {isl: 1000, osl: 100}, {isl: 30000, osl: 20000}]\n"
    "slos: [{tpot: 30ms}, {ttft: 1ms}]\n";
constexpr int kQuickItems = 48;

// Answers in a shard's file, which another process may be writing.
int64_t answers_in(const std::string& file) {
  try {
    if (!fs::exists(file)) return 0;
    const perfdb::Connection connection(file, SQLITE_OPEN_READONLY);
    perfdb::Statement count(connection, "SELECT count(*) FROM answers");
    return count.step() ? count.integer(0) : 0;
  } catch (const core::Error&) {  // not made yet
    return 0;
  }
}

// A drydock that is killed, not asked, once `file` holds so many answers and so much time has passed; true: it was
// killed before it was done.
bool killed(const std::vector<std::string>& arguments, const std::string& file, int64_t answers, int then_us) {
  const pid_t child = start_drydock(arguments);
  REQUIRE(child > 0);
  int status = 0;
  while (answers_in(file) < answers) {
    if (::waitpid(child, &status, WNOHANG) == child) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
  std::this_thread::sleep_for(std::chrono::microseconds(then_us));
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

std::string shown(const std::string& file, const char* how) {
  const Run run = run_drydock({"sweep", "--show", file, how});
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  return run.out;
}

std::set<int64_t> items_of(const std::string& json) {
  std::set<int64_t> out;
  for (const core::Json& item : core::parse_json(json, "stdout")["items"]) out.insert(item["item"].get<int64_t>());
  return out;
}

size_t widest_sweep_line(const std::string& text) {
  size_t widest = 0, length = 0;
  for (const char c : text) {
    length = c == '\n' ? 0 : length + ((c & 0xC0) != 0x80);
    widest = std::max(widest, length);
  }
  return widest;
}

std::string example(const char* name) { return std::string(DRYDOCK_SOURCE_DIR) + "/docs/examples/" + name; }

}  // namespace

TEST_CASE("sweep: shards killed again and again come to the same bytes as one run") {
  const Scratch scratch;
  const std::string yaml = scratch.write("sweep.yaml", kQuickSweep);
  REQUIRE(run_drydock({"sweep", yaml, "--out", scratch / "whole"}).exit_code == 0);
  core::Random random(3);
  int kills = 0, losses = 0;
  for (int k = 1; k <= 3; ++k) {
    const std::string out = scratch / "parts", file = out + "/shard-" + std::to_string(k) + "-of-3.db";
    const std::vector<std::string> run = {"sweep",     yaml, "--out",   out, "--shard", std::to_string(k) + "/3",
                                          "--threads", "1",  "--resume"};
    std::set<int64_t> before;
    for (int i = 0; i < 4; ++i) {
      const auto more = static_cast<int64_t>(random.uniform() * 3);
      if (!killed(run, file, answers_in(file) + more, static_cast<int>(random.uniform() * 5'000))) continue;
      ++kills;
      const Run look = run_drydock({"sweep", "--show", file, "--json"});
      if (look.exit_code != 0) {  // killed before the file was there
        CHECK(before.empty());
        continue;
      }
      const std::set<int64_t> now = items_of(look.out);
      for (const int64_t item : before) CHECK(now.contains(item));  // what was answered once stays answered
      for (const int64_t item : now) CHECK(item % 3 == k - 1);
      losses += now.size() < kQuickItems / 3;
      before = now;
    }
    const Run rest = run_drydock(run);
    CAPTURE(rest.err);
    REQUIRE(rest.exit_code == 0);
  }
  CHECK(kills >= 3);
  CHECK(losses >= 1);
  REQUIRE(run_drydock({"sweep", "--merge", scratch / "parts"}).exit_code == 0);
  CHECK(shown(scratch / "parts/merged.db", "--json") == shown(scratch / "whole/sweep.db", "--json"));
  CHECK(shown(scratch / "parts", "--csv") == shown(scratch / "whole", "--csv"));
  // `db merge` does the same.
  REQUIRE(run_drydock({"db", "merge", "--db", scratch / "again.db", "--from", scratch / "parts/shard-3-of-3.db",
                       scratch / "parts/shard-1-of-3.db", scratch / "parts/shard-2-of-3.db"})
              .exit_code == 0);
  CHECK(shown(scratch / "again.db", "--json") == shown(scratch / "whole/sweep.db", "--json"));
}

TEST_CASE("sweep: the example of the docs, as a table, as CSV and as JSON") {
  const Scratch scratch;
  const Run run = run_drydock({"sweep", example("sweep.yaml"), "--out", scratch / "o", "--json"});
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  CHECK(run.err == "");  // no bar where stderr is no terminal
  const core::Json told = core::parse_json(run.out, "stdout");
  CHECK(told["items"] == 16);
  CHECK(told["answered_here"] == 16);
  const std::string table = run_drydock({"sweep", "--show", scratch / "o"}).out;
  CHECK(lines(table) == 16 + 3);
  CHECK(widest_sweep_line(table) <= 100);
  const core::Csv csv = core::Csv::parse(shown(scratch / "o", "--csv"), "csv");
  CHECK(csv.rows() == 16);
  const core::Json json = core::parse_json(shown(scratch / "o", "--json"), "stdout");
  int met = 0;
  for (size_t i = 0; i < 16; ++i) {
    const core::Json& item = json["items"][i];
    CHECK(csv.cell(i, csv.column("status")) == item["status"]);
    if (item["status"] != "met") continue;
    ++met;
    const core::Json& tail = item["plan"]["prediction"]["tail"];
    CHECK(*csv.number(i, csv.column("tpot_ms"), 0, 1e9) ==
          doctest::Approx(tail["tpot_ms"]["value"].get<double>()).epsilon(1e-5));
    CHECK(item["plan"]["prediction"].contains("cost_per_million_tokens"));
    // A stored plan is one that every other command reads.
    if (met == 1)
      CHECK(run_drydock({"estimate", "--plan", scratch.write("plan.json", item["plan"].dump())}).exit_code == 0);
  }
  CHECK(met == told["status"]["met"]);
  CHECK(met > 8);

  const Run again = run_drydock({"sweep", example("sweep.yaml"), "--out", scratch / "o"});
  CHECK(again.exit_code == 2);
  CHECK(again.err.find("holds 16 answers already; --resume goes on") != std::string::npos);
  const Run resumed = run_drydock({"sweep", example("sweep.yaml"), "--out", scratch / "o", "--resume", "--json"});
  CHECK(core::parse_json(resumed.out, "stdout")["answered_here"] == 0);
}

TEST_CASE("sweep: bad input is one line, exit code 2, and leaves nothing") {
  const Scratch scratch;
  const std::string good = scratch.write("good.yaml", kQuickSweep),
                    unknown = scratch.write("bad.yaml", "modles: [a]\n");
  struct Case {
    std::vector<std::string> arguments;
    const char* says;
  };
  for (const Case& c : std::vector<Case>{
           {{}, "sweep.yaml is missing"},
           {{good}, "--out is missing"},
           {{scratch / "none.yaml", "--out", scratch / "o"}, "none.yaml"},
           {{unknown, "--out", scratch / "o"},
            "bad.yaml: line 1: field 'modles': not known here, did you mean 'models'?"},
           {{good, "--out", scratch / "o", "--shard", "4/3"}, "--shard '4/3': want k/n"},
           {{good, "--out", scratch / "o", "--threads", "0"}, "--threads '0'"},
           {{good, "--show", scratch / "o"}, "give one of sweep.yaml, --show and --merge"},
           {{good, "--out", scratch / "o", "--csv"}, "--csv: goes with --show"},
           {{good, "--out", scratch / "o", "--shards", "4"}, "--shards: goes with --write-jobs"},
           {{"--show", scratch / "none.db"}, "no such sweep file"},
           {{"--show", good}, "is no file of a sweep"},
           {{"--show", scratch / "."}, "holds neither merged.db nor sweep.db"},
           {{"--merge", scratch / "none"}, "no such folder"},
           {{"--merge", scratch / "."}, "holds no shard-*.db"},
           {{good, "--out", scratch / "o", "--write-jobs", "slrm", "--shards", "4"}, "did you mean 'slurm'?"},
           {{good, "--out", scratch / "o", "--write-jobs", "slurm"}, "--shards is missing"},
           {{good, "--out", scratch / "o", "--write-jobs", "k8s", "--shards", "2", "--set", "imag=x"},
            "did you mean 'image'?"},
           {{good, "--out", scratch / "o", "--write-jobs", "slurm", "--shards", "2", "--set", "partition=a\nb"},
            "want letters"},
       }) {
    std::vector<std::string> arguments{"sweep"};
    arguments.insert(arguments.end(), c.arguments.begin(), c.arguments.end());
    const Run run = run_drydock(arguments);
    CAPTURE(run.err);
    CHECK(run.exit_code == 2);
    CHECK(run.out == "");
    CHECK(lines(run.err) == 1);
    CHECK(run.err.find(c.says) != std::string::npos);
    CHECK(!fs::exists(scratch / "o"));
  }
  const Run merge = run_drydock({"db", "merge", "--db", scratch / "m.db", "--from", scratch / "none.db"});
  CHECK(merge.exit_code == 2);
  CHECK(!fs::exists(scratch / "m.db"));
}

TEST_CASE("sweep: the jobs of its shards") {
  const Scratch scratch;
  const Run run = run_drydock({"sweep", example("sweep.yaml"), "--write-jobs", "slurm,k8s", "--shards", "5", "--out",
                               scratch / "jobs", "--set", "image=registry/dry'dock:1", "--set",
                               "program=/opt/my tools/drydock", "--json"});
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  for (const core::Json& file : core::parse_json(run.out, "stdout")["files"])
    CHECK(fs::exists(scratch / ("jobs/" + file["path"].get<std::string>())));
  const std::string array = core::read_file(scratch / "jobs/slurm/sweep.sbatch");
  CHECK(array.find("#SBATCH --array=1-5\n") != std::string::npos);
  CHECK(array.find("srun '/opt/my tools/drydock' sweep sweep.yaml --out results --shard \"$SLURM_ARRAY_TASK_ID/5\"") !=
        std::string::npos);
  CHECK(core::read_file(scratch / "jobs/slurm/sweep.yaml") == core::read_file(example("sweep.yaml")));
  const std::string job = core::read_file(scratch / "jobs/k8s/sweep.yaml");
  CHECK(job.find("completionMode: \"Indexed\"") != std::string::npos);
  CHECK(job.find("completions: 5\n") != std::string::npos);
  CHECK(job.find("--shard $((JOB_COMPLETION_INDEX + 1))/5 ") != std::string::npos);
  // What is there is kept: other jobs take its place with --force alone.
  const std::vector<std::string> other = {"sweep", example("sweep.yaml"), "--write-jobs", "slurm", "--shards", "6",
                                          "--out", scratch / "jobs"};
  const Run kept = run_drydock(other);
  CHECK(kept.exit_code == 2);
  CHECK(lines(kept.err) == 1);
  CHECK(core::read_file(scratch / "jobs/slurm/sweep.sbatch") == array);
  std::vector<std::string> forced = other;
  forced.emplace_back("--force");
  CHECK(run_drydock(forced).exit_code == 0);
  CHECK(core::read_file(scratch / "jobs/slurm/sweep.sbatch") != array);
}

TEST_CASE("fleet: the example of the docs, its plans, and a stock that is too small") {
  const Scratch scratch;
  const Run run = run_drydock({"fleet", example("fleet.yaml"), "--out", scratch / "o", "--json"});
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  const core::Json json = core::parse_json(run.out, "stdout");
  CHECK(json["feasible"] == true);
  CHECK(json["gap"] == 0);
  double cost = 0, share = 0;
  for (const core::Json& d : json["deployments"]) {
    cost += d["cost_per_hour"].get<double>();
    share += d["traffic_share"].get<double>();
    const core::Json written = core::read_json(scratch / ("o/" + d["file"].get<std::string>()));
    CHECK(written == d["plan"]);
    const core::Json& tail = written["prediction"]["tail"];
    CHECK(tail["ttft_ms"]["value"] <= written["slo"]["ttft_ms"]);
    CHECK(tail["tpot_ms"]["value"] <= written["slo"]["tpot_ms"]);
  }
  CHECK(share == doctest::Approx(3));  // of three models
  CHECK(cost == doctest::Approx(json["cost_per_hour"].get<double>()));
  double price = 0;
  for (const core::Json& s : json["stock"]) {
    CHECK(s["left"] >= 0);
    price += s["used"].get<double>() * s["price"].get<double>();
  }
  CHECK(price == doctest::Approx(cost));
  const Run simulated = run_drydock(
      {"simulate", "--plan", scratch / ("o/" + json["deployments"][0]["file"].get<std::string>()), "--json"});
  CAPTURE(simulated.err);
  CHECK(simulated.exit_code == 0);

  for (const core::Json& d : json["deployments"]) {  // its plans are plans: their files are written and checked
    const std::string plan = scratch / ("o/" + d["file"].get<std::string>()),
                      files = scratch / ("files-" + d["file"].get<std::string>());
    const Run made =
        run_drydock({"generate", plan, "--target", "vllm,slurm,k8s,kserve,grafana,alerts,bench", "--out", files});
    CAPTURE(made.err);
    CHECK(made.exit_code == 0);
    CHECK(run_drydock({"generate", "--check", files, plan}).exit_code == 0);
  }

  const std::string small = scratch.write("small.yaml",
                                          "stock: [{system: l40s, gpus: 1}]\nmode: agg\nmodels: [{name: "
                                          "\"a$(b)/../c\", model: Qwen/Qwen3-8B, precision: fp8, backend: vllm, "
                                          "isl: 1000, osl: 100, rate: 100, tpot: 60ms}]\n");
  const Run lacking = run_drydock({"fleet", small, "--out", scratch / "p"});
  CHECK(lacking.exit_code == 3);
  CHECK(lacking.out.find("The stock is too small") != std::string::npos);
  CHECK(lacking.out.find("more (the fewest GPUs)") != std::string::npos);
  CHECK(widest_sweep_line(lacking.out) <= 100);
  CHECK(!fs::exists(scratch / "p"));
  // Names of any length and kind: a table of 100 columns, and files that stay in their folder.
  const Run odd = run_drydock(
      {"fleet",
       scratch.write("odd.yaml",
                     "stock: [{system: l40s, gpus: 8}]\nmode: agg\nmodels: [{name: \"../a $(b) 'c' " +
                         std::string(200, 'x') +
                         "\", model: Qwen/Qwen3-8B, precision: fp8, backend: vllm, isl: 1000, osl: 100, rate: "
                         "20, tpot: 60ms}]\n"),
       "--out", scratch / "odd"});
  CAPTURE(odd.err);
  CHECK(odd.exit_code == 0);
  CHECK(widest_sweep_line(odd.out.substr(0, odd.out.find("Written to"))) <= 100);
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(scratch / "odd")) files += entry.is_regular_file();
  CHECK(files >= 2);
  CHECK(!fs::exists(scratch / "a"));
  // Names that other files of the folder have: none takes another's place.
  const std::string alike =
      "model: Qwen/Qwen3-8B, precision: fp8, backend: vllm, isl: 1000, osl: 100, rate: 2, tpot: 60ms}";
  const Run named =
      run_drydock({"fleet",
                   scratch.write("named.yaml", "stock: [{system: l40s, gpus: 8}]\nmode: agg\nmodels: [{name: fleet, " +
                                                   alike + ", {name: other, " + alike + "]\n"),
                   "--out", scratch / "named"});
  CAPTURE(named.err);
  CHECK(named.exit_code == 0);
  CHECK(core::read_json(scratch / "named/fleet.json")["schema"] == "drydock.fleet");
  int plans = 0;
  for (const auto& entry : fs::directory_iterator(scratch / "named"))
    plans += core::read_json(entry.path())["schema"] == "drydock.plan";
  CHECK(plans == 2);
  const Run bad = run_drydock({"fleet", scratch.write("bad.yaml", "stock: [{system: x, gpus: 1}]\nmodels: &a\n")});
  CHECK(bad.exit_code == 2);
  CHECK(lines(bad.err) == 1);
}
