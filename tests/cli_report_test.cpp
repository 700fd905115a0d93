#include <doctest/doctest.h>
#include <fcntl.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "core/file.h"
#include "core/json.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::tests;

namespace {

using Arguments = std::vector<std::string>;

// A small search: a second's work with its study of assumptions.
Arguments small(const std::string& model, const Arguments& more) {
  Arguments all = {"recommend", "--model", model,    "--system", "h200_sxm", "--gpus", "2",
                   "--backend", "vllm",    "--mode", "agg",      "--isl",    "800",    "--osl",
                   "100",       "--ttft",  "400",    "--tpot",   "15"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

// The page's data, as a browser reads it.
core::Json island(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t from = page.find(open) + open.size(), to = page.find("</script>", from);
  REQUIRE(page.find(open) != std::string::npos);
  return core::parse_json(page.substr(from, to - from), "island");
}

int times(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

void report_refused(const Arguments& arguments, const std::string& names) {
  const Run run = run_drydock(arguments);
  CAPTURE(run.err);
  CHECK(run.exit_code == 2);
  CHECK(run.out == "");
  CHECK(lines(run.err) == 1);
  CHECK(run.err.find(names) != std::string::npos);
}

// What the program prints to a terminal 120 columns wide.
std::string at_terminal(const Arguments& arguments, const char* variable, const char* value) {
  int terminal = -1;
  winsize size{40, 120, 0, 0};
  const std::string program = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "drydock").string();
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
  REQUIRE(child >= 0);
  if (child == 0) {
    ::setenv("TERM", "xterm", 1);
    ::unsetenv("NO_COLOR");
    ::setenv(variable, value, 1);
    std::vector<char*> argv{const_cast<char*>(program.c_str())};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = ::read(terminal, buffer, sizeof buffer)) > 0;) out.append(buffer, static_cast<size_t>(n));
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(terminal);
  CHECK(WEXITSTATUS(status) == 0);
  return out;
}

}  // namespace

TEST_CASE("recommend --report: one page with the answer's data, and no way out of it") {
  const Scratch scratch;
  const std::string file = scratch / "report.html";
  const Run run = run_drydock(small("Qwen/Qwen3-8B", {"--top", "3", "--report", file}));
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  CHECK(run.out.find("Report: " + file) != std::string::npos);
  const std::string page = core::read_file(file);
  CHECK(page.size() < 600'000);
  CHECK(page.find("Content-Security-Policy\" content=\"default-src 'none'; script-src 'sha256-") != std::string::npos);
  CHECK(page.find("@") == page.find("@media"));  // every place of the template was filled
  CHECK(times(page, "<script") == 3);
  for (const char* outside : {"src=", "href=", "@import", "url("})
    CHECK(page.substr(0, page.find("id=\"data\"")).find(outside) == std::string::npos);

  const core::Json data = island(page);
  CHECK(data["schema"] == "drydock.report");
  CHECK(data["version"] == 1);
  CHECK(data["met"] == true);
  CHECK(data["command"].get<std::string>().starts_with("drydock recommend --model Qwen/Qwen3-8B --system h200_sxm"));
  REQUIRE(!data["plans"].empty());
  REQUIRE(!data["front"].empty());
  for (const char* list : {"plans", "front"})
    for (const core::Json& plan : data[list]) {
      for (const char* figure : {"ttft_ms", "tpot_ms", "tokens_per_s_per_gpu", "tokens_per_s_per_user"})
        CHECK(plan[figure]["low"] <= plan[figure]["high"]);
      CHECK(plan["plan"]["schema"] == "drydock.plan");
      REQUIRE(plan["commands"].size() >= 4);
      CHECK(plan["commands"][3]["line"].get<std::string>().starts_with("drydock generate --plan plan.json --target "));
      for (const core::Json& step : plan["breakdown"]) {
        const core::Json& memory = step["memory_bytes"];
        double parts = 0, share = 0;
        for (const char* part : {"weights", "activations", "communication", "runtime", "kv_room", "kept_free"})
          parts += memory[part].get<double>();
        for (const core::Json& op : step["ops"]) share += op["share"].get<double>();
        CHECK(parts == doctest::Approx(memory["gpu"].get<double>()).epsilon(1e-3));  // five digits each
        CHECK(share <= 1.001);
        CHECK(step["total_us"] > 0);
      }
    }
}

TEST_CASE("recommend --report: distributions agree with the prediction, and assumptions move it the right way") {
  const Scratch scratch;
  const std::string file = scratch / "report.html";
  REQUIRE(run_drydock(small("Qwen/Qwen3-8B", {"--top", "2", "--report", file})).exit_code == 0);
  const core::Json data = island(core::read_file(file));
  const core::Json& plan = data["plans"][0];
  for (const char* figure : {"ttft_ms", "tpot_ms"}) {
    const auto curve = plan["felt"][figure].get<std::vector<double>>();
    REQUIRE(curve.size() == 101);
    CHECK(std::is_sorted(curve.begin(), curve.end()));
    // The same simulation gave both; five digits are kept of each.
    CHECK(curve[95] == doctest::Approx(plan["tail"][figure]["value"].get<double>()).epsilon(1e-4));
  }
  REQUIRE(!data["sensitivity"].empty());
  const core::Json& base = data["sensitivity"][0];
  CHECK(base["assumption"] == "");
  CHECK(base["plans"][0]["as_deployed"]["tpot_ms"].get<double>() ==
        doctest::Approx(plan["tail"]["tpot_ms"]["value"].get<double>()).epsilon(1e-4));
  std::vector<std::string> seen;
  for (const core::Json& change : data["sensitivity"]) {
    const core::Json& moved = change["plans"][0]["as_deployed"];
    REQUIRE(moved.is_object());
    const double tpot = moved["tpot_ms"], was = base["plans"][0]["as_deployed"]["tpot_ms"];
    seen.push_back(change["assumption"]);
    if (change["assumption"] != "all kernel times") continue;
    // Kernels are most of a step and scale with the change; the host's part stays: between half of 10 % and a little
    // over, as slower decode steps also meet more prompt chunks.
    const double share = (tpot / was - 1) / (0.1 * change["direction"].get<int>());
    CHECK(share > 0.5);
    CHECK(share < 1.3);
  }
  for (const char* wanted : {"all kernel times", "GEMM times", "attention times", "host time of a step",
                             "prompt length (ISL)", "answer length (OSL)", "prefix cache hits"})
    CHECK(std::count(seen.begin(), seen.end(), wanted) >= 1);
}

TEST_CASE("recommend --report: a hostile model name stays text") {
  const Scratch scratch;
  const core::Json facts = core::read_json(std::string(DRYDOCK_SOURCE_DIR) + "/models/data/models/qwen3-8b.json");
  // The folders "<b>&" + "'\"<" and "script><script>x('" spell a closing tag in the path.
  const std::string model = scratch / "<b>&'\"<" + "/script><script>x('\n";
  std::filesystem::create_directories(model);
  core::write_file(model + "/config.json", facts["config"].dump());
  const std::string file = scratch / "report.html";
  const Run run = run_drydock(small(model, {"--top", "1", "--report", file}));
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  const std::string page = core::read_file(file);
  CHECK(times(page, "<script") == 3);
  CHECK(page.find("<b>") == std::string::npos);
  const core::Json data = island(page);
  CHECK(data["question"]["model"] == model);
  CHECK(data["command"].get<std::string>().find("script><script>x('\\''\n'") != std::string::npos);
}

TEST_CASE("recommend --report: written with exit code 3 too, refused before the work") {
  const Scratch scratch;
  const std::string file = scratch / "misses.html";
  Arguments arguments = small("Qwen/Qwen3-8B", {"--report", file});
  *(std::find(arguments.begin(), arguments.end(), "--tpot") + 1) = "0.01";
  CHECK(run_drydock(arguments).exit_code == 3);
  CHECK(island(core::read_file(file))["met"] == false);
  report_refused(small("Qwen/Qwen3-8B", {"--report", scratch / "no/such/folder.html"}), "its folder is not there");
  report_refused(small("Qwen/Qwen3-8B", {"--report", scratch.path().string()}), "is a folder");
}

TEST_CASE("plot: pages of requests, timelines and accuracy; what is none of them is refused in a line") {
  const Scratch scratch;
  const std::string requests = scratch.write(
      "requests.csv",
      "arrival_s,prompt_tokens,output_tokens,cached_tokens,queue_ms,ttft_ms,tpot_ms,latency_ms,worker,migrations,"
      "status\n"
      "0.0,10,5,0,0,100,10,140,0,0,warmup\n1.0,10,5,0,1,200,20,280,0,0,ok\n2.0,10,5,0,3,400,40,560,0,0,ok\n"
      "3.0,10,5,0,,,,,0,0,lost\n");
  const std::string page = scratch / "page.html";
  REQUIRE(run_drydock({"plot", requests, "--out", page}).exit_code == 0);
  const core::Json r = island(core::read_file(page));
  CHECK(r["kind"] == "requests");
  CHECK(r["statuses"]["ok"] == 2);
  CHECK(r["curves"]["ttft_ms"][0] == 200);
  CHECK(r["curves"]["ttft_ms"][50] == 300);  // half way between the two that count
  CHECK(r["dots"].size() == 2);

  const std::string timeline = scratch.write("timeline.csv",
                                             "time_s,worker_alive,worker_starting,worker_waiting,worker_running,worker_"
                                             "kv_share\n0,1,0,2,3,0.5\n1,1,0,0,4,0.25\n");
  REQUIRE(run_drydock({"plot", timeline, "--out", page}).exit_code == 0);
  const core::Json t = island(core::read_file(page));
  CHECK(t["pools"][0]["name"] == "worker");
  CHECK(t["pools"][0]["kv_share"] == core::Json::array({0.5, 0.25}));

  const std::string head =
      "model,ttft_ms,tpot_ms,predicted_ttft_ms,predicted_tpot_ms,predicted_ttft_low_ms,predicted_ttft_high_ms,"
      "predicted_tpot_low_ms,predicted_tpot_high_ms\n";
  const std::string accuracy =
      scratch.write("a.csv", head + "</script><script>,100,10,110,8,90,130,7,9\nb,200,,100,,90,110,,\n");
  REQUIRE(run_drydock({"plot", accuracy, "--out", page}).exit_code == 0);
  const std::string text = core::read_file(page);
  CHECK(times(text, "<script") == 3);
  const core::Json a = island(text);
  CHECK(a["figures"][0]["errors"]["mape"] == doctest::Approx(0.3));  // 10 % over and 50 % under
  CHECK(a["figures"][0]["errors"]["in_band"] == 0.5);
  CHECK(a["figures"][1]["errors"]["rows"] == 1);
  CHECK(a["groups"][0]["names"][0] == "</script><script>");

  report_refused({"plot", scratch.write("other.csv", "a,b\n1,2\n"), "--out", page}, "want the columns of requests.csv");
  report_refused({"plot", scratch.write("bad.csv", head + "m,x,1,1,1,1,1,1,1\n"), "--out", page},
                 "line 2: column 'ttft_ms'");
  report_refused({"plot",
                  scratch.write("back.csv",
                                "time_s,w_alive,w_starting,w_waiting,w_running,w_kv_share\n2,1,0,0,0,0\n1,1,0,0,0,0\n"),
                  "--out", page},
                 "line 3");
  report_refused({"plot", scratch / "none.csv", "--out", page}, "none.csv");
  report_refused({"plot", requests}, "--out is missing");
  report_refused({"plot"}, "FILE is missing");
}

TEST_CASE("colour at a terminal only, NO_COLOR and dumb terminals respected, 100 columns everywhere") {
  const Arguments arguments = {"recommend", "--model",   "deepseek-ai/DeepSeek-R1",
                               "--system",  "h200_sxm",  "--gpus",
                               "16",        "--backend", "trtllm",
                               "--isl",     "4000",      "--osl",
                               "500",       "--ttft",    "4000",
                               "--tpot",    "50",        "--method",
                               "analytic"};
  const Run piped = run_drydock(arguments);
  REQUIRE(piped.exit_code == 0);
  CHECK(piped.out.find('\x1b') == std::string::npos);
  const std::string coloured = at_terminal(arguments, "TERM", "xterm");
  CHECK(coloured.find("\x1b[32m") != std::string::npos);
  CHECK(at_terminal(arguments, "NO_COLOR", "1").find('\x1b') == std::string::npos);
  CHECK(at_terminal(arguments, "TERM", "dumb").find('\x1b') == std::string::npos);
  for (const Arguments& asked : {arguments, Arguments{"models"}, Arguments{"systems"}, Arguments{"support"}}) {
    const std::string out = run_drydock(asked).out;
    for (size_t start = 0, end; (end = out.find('\n', start)) != std::string::npos; start = end + 1) {
      CAPTURE(out.substr(start, end - start));
      CHECK(end - start <= 100);
    }
  }
}
