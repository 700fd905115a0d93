// `drydock serve` with tensor parallelism: every rank a process, killed as users' machines kill them.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <thread>

#include "core/file.h"
#include "core/json.h"
#include "tests/http_client.h"
#include "tests/run.h"

extern char** environ;

namespace drydock::tests {
namespace {

namespace fs = std::filesystem;

std::string pool_of(const std::string& role, int replicas, int tp) {
  return R"({"role": ")" + role + R"(", "system": "h200_sxm", "replicas": )" + std::to_string(replicas) +
         R"(, "tp": )" + std::to_string(tp) + R"(, "max_batch": 16, "max_tokens": 256, "kv_blocks": 400})";
}

std::string plan_of(const std::string& mode, const std::string& pools) {
  return R"({"schema": "drydock.plan", "version": 1, "model": "tiny", "precision": "fp32", "backend": "vllm", "mode": ")" +
         mode + R"(", "workload": {"isl": 64, "osl": 64}, "pools": [)" + pools + "]}";
}

// The golden Llama with room for longer answers.
std::string model_dir(const Scratch& scratch) {
  std::string config = core::read_file(fs::path(DRYDOCK_SOURCE_DIR) / "tests/golden/llama3/config.json");
  const std::string field = "\"max_position_embeddings\": 512";
  config.replace(config.find(field), field.size(), "\"max_position_embeddings\": 4096");
  fs::create_directories(scratch.path() / "model");
  scratch.write("model/config.json", config);
  return scratch / "model";
}

std::string text_of_file(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Process {
  pid_t pid = 0, parent = 0;
  std::vector<std::string> words;
};

// Those below `root`, that are no zombies.
std::vector<Process> processes_below(pid_t root) {
  std::map<pid_t, Process> all;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string stat = text_of_file(entry.path() / "stat");
    const size_t end = stat.rfind(") ");
    if (end == std::string::npos || stat[end + 2] == 'Z') continue;
    Process p{std::stoi(name), std::stoi(stat.substr(end + 4)), {}};
    const std::string line = text_of_file(entry.path() / "cmdline");
    for (size_t at = 0; at < line.size(); at += p.words.back().size() + 1) p.words.emplace_back(line.c_str() + at);
    all[p.pid] = std::move(p);
  }
  std::set<pid_t> below = {root};
  std::vector<Process> out;
  for (bool more = true; more;) {
    more = false;
    for (const auto& [pid, p] : all) {
      if (!below.contains(p.parent) || !below.insert(pid).second) continue;
      out.push_back(p);
      more = true;
    }
  }
  return out;
}

class Server {
 public:
  Server(const Scratch& scratch, const std::string& plan, std::vector<std::string> more = {}) {
    static int number = 0;
    errors_ = scratch / ("errors" + std::to_string(number++));
    const std::string program = (fs::read_symlink("/proc/self/exe").parent_path() / "drydock").string();
    std::vector<std::string> words = {program,
                                      "serve",
                                      plan,
                                      "--engine",
                                      "cpu",
                                      "--model-path",
                                      model_dir(scratch),
                                      "--random-weights",
                                      "7",
                                      "--port",
                                      "0",
                                      "--threads",
                                      "2",
                                      "--kv-gib",
                                      "0.05",
                                      "--log-level",
                                      "warning",
                                      "--drain-timeout",
                                      "5s",
                                      "--restarts",
                                      "100"};
    words.insert(words.end(), more.begin(), more.end());
    int out[2];
    REQUIRE(::pipe2(out, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out[1], 1);
    posix_spawn_file_actions_addopen(&files, 2, errors_.c_str(), O_WRONLY | O_CREAT, 0600);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    REQUIRE(::posix_spawn(&pid_, program.c_str(), &files, nullptr, argv.data(), environ) == 0);
    posix_spawn_file_actions_destroy(&files);
    ::close(out[1]);
    std::string said;
    char c = 0;
    while (said.find("http://127.0.0.1:") == std::string::npos || said.back() != '\n') {
      if (::read(out[0], &c, 1) != 1) break;
      said += c;
    }
    ::close(out[0]);
    INFO(text_of_file(errors_));
    REQUIRE(said.find("http://127.0.0.1:") != std::string::npos);
    port_ = std::stoi(said.substr(said.rfind(':') + 1));
    wait_for("drydock_worker_up", 1);
  }
  ~Server() {
    if (pid_ <= 0) return;
    for (const Process& p : processes_below(pid_)) ::kill(p.pid, SIGKILL);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  pid_t pid() const { return pid_; }
  int port() const { return port_; }

  // Of all workers; below 0: nobody answers.
  double total(const std::string& metric) const try {
    RawClient client(port_);
    client.send(get("/metrics"));
    const auto response = client.read();
    double sum = 0;
    for (size_t at = 0; response && (at = response->body.find("\n" + metric, at)) != std::string::npos;) {
      at = response->body.find(' ', at);
      sum += std::stod(response->body.substr(at));
    }
    return response ? sum : -1;
  } catch (const std::runtime_error&) {
    return -1;
  }
  void wait_for(const std::string& metric, double least) const {
    for (int i = 0; i < 1500 && total(metric) < least; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    INFO(text_of_file(errors_));
    REQUIRE(total(metric) >= least);
  }

  // Processes of ranks, by name: "worker/0:1".
  std::map<std::string, pid_t> ranks() const {
    std::map<std::string, pid_t> out;
    for (const Process& p : processes_below(pid_))
      if (p.words.size() == 3 && p.words[1] == "rank") out[p.words[2]] = p.pid;
    return out;
  }

  int stop() {
    int status = 0;
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = 0;
  int port_ = 0;
  std::string errors_;
};

// A stream of a greedy answer, and its text once it is whole. In these answers the likeliest token leads by 1.7e-4 in
// log-probability and more; the order in which steps are batched and sums are made changes 1e-6.
class Answer {
 public:
  Answer(int port, int number, int tokens) : client_(port) {
    client_.send(post("/v1/completions", R"({"prompt": [)" + std::to_string(number + 1) +
                                             R"(, 17, 301, 44, 5, 90, 411],
        "temperature": 0, "ignore_eos": true, "stream": true, "max_tokens": )" +
                                             std::to_string(tokens) + "}"));
  }
  void wait_for_begin() { client_.read_until("data: "); }
  std::string text() {
    const auto response = client_.read();
    if (!response || response->status != 200) return "no answer";
    std::string out;
    for (const std::string& event : response->events()) {
      if (event == "[DONE]") return out;
      const auto json = core::parse_json(event, "event");
      if (json.contains("error")) return event;
      out += json.at("choices").at(0).at("text").get<std::string>();
    }
    return "an answer without an end";
  }

 private:
  RawClient client_;
};

std::vector<std::string> answers(const Server& server, int count, int tokens) {
  std::vector<std::unique_ptr<Answer>> open;
  for (int i = 0; i < count; ++i) open.push_back(std::make_unique<Answer>(server.port(), i, tokens));
  std::vector<std::string> out;
  for (auto& answer : open) out.push_back(answer->text());
  return out;
}

bool all_gone(const std::vector<Process>& processes) {
  for (int i = 0; i < 500; ++i) {
    bool any = false;
    for (const Process& p : processes) {
      const std::string stat = text_of_file("/proc/" + std::to_string(p.pid) + "/stat");
      any |= !stat.empty() && stat.find(") Z ") == std::string::npos;
    }
    if (!any) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

constexpr int kAnswers = 4, kTokens = 300;

// One rank's, with which all others' are compared.
const std::vector<std::string>& right_answers() {
  static const std::vector<std::string> kRight = [] {
    const Scratch scratch;
    Server one(scratch, scratch.write("one.json", plan_of("agg", pool_of("worker", 1, 1))));
    CHECK(one.ranks().empty());
    std::vector<std::string> out = answers(one, kAnswers, kTokens);
    CHECK(one.stop() == 0);
    for (const std::string& text : out) REQUIRE(text.size() >= kTokens);
    return out;
  }();
  return kRight;
}

// Streams answers, kills `victim` once all have begun, and looks that every answer is the right one all the same.
void kill_in_the_middle(const Server& server, pid_t victim) {
  std::vector<std::unique_ptr<Answer>> open;
  for (int i = 0; i < kAnswers; ++i) open.push_back(std::make_unique<Answer>(server.port(), i, kTokens));
  for (auto& answer : open) answer->wait_for_begin();
  ::kill(victim, SIGKILL);
  for (size_t i = 0; i < open.size(); ++i) CHECK(open[i]->text() == right_answers()[i]);
}

}  // namespace

TEST_CASE("prefill and decode workers of one rank and of two hand KV to each other") {
  for (const auto& [prefill, decode] : {std::pair(2, 1), std::pair(1, 2)}) {
    const Scratch scratch;
    const std::string pools = pool_of("prefill", 1, prefill) + ", " + pool_of("decode", 1, decode);
    Server server(scratch, scratch.write("plan.json", plan_of("disagg", pools)));
    CHECK(server.ranks().size() == 1);
    CHECK(answers(server, kAnswers, kTokens) == right_answers());
    CHECK(server.total("drydock_kv_transferred_bytes_total") > 0);
    const auto below = processes_below(server.pid());
    CHECK(server.stop() == 0);
    CHECK(all_gone(below));
  }
}

TEST_CASE("a rank is killed: its worker begins anew, and its answers go on with the other worker") {
  const Scratch scratch;
  Server server(scratch, scratch.write("plan.json", plan_of("agg", pool_of("worker", 2, 2))), {"--processes"});
  server.wait_for("drydock_worker_up", 2);
  REQUIRE(server.ranks().size() == 2);
  for (const char* whom : {"worker/0:1", "worker/1:1"}) {
    kill_in_the_middle(server, server.ranks().at(whom));
    server.wait_for("drydock_worker_up", 2);
    CHECK(server.ranks().size() == 2);
  }
  CHECK(server.total("drydock_worker_restarts_total") >= 2);
  CHECK(server.total("drydock_requests_migrated_total") >= 2);
  // The first rank's process is killed: the other one's ends by itself.
  std::vector<Process> other;
  for (const Process& p : processes_below(server.pid()))
    if (p.words.size() == 3 && p.words[2] == "worker/0:1") other.push_back(p);
  REQUIRE(other.size() == 1);
  kill_in_the_middle(server, other[0].parent);
  CHECK(all_gone(other));
  server.wait_for("drydock_worker_restarts_total", 3);
  server.wait_for("drydock_worker_up", 2);
  const auto below = processes_below(server.pid());
  CHECK(below.size() == 5);  // a router, two workers and a rank more of each
  CHECK(server.stop() == 0);
  CHECK(all_gone(below));
}

TEST_CASE("in one process, too, a worker that lost a rank begins anew") {
  const Scratch scratch;
  Server server(scratch, scratch.write("plan.json", plan_of("agg", pool_of("worker", 2, 2))));
  CHECK(answers(server, kAnswers, kTokens) == right_answers());
  const auto descriptors = [&] {
    return std::distance(fs::directory_iterator("/proc/" + std::to_string(server.pid()) + "/fd"), {});
  };
  const auto before = descriptors();
  for (int round = 0; round < 2; ++round) {
    kill_in_the_middle(server, server.ranks().begin()->second);
    server.wait_for("drydock_worker_up", 2);
    CHECK(server.ranks().size() == 2);
  }
  CHECK(server.total("drydock_worker_restarts_total") == 2);
  // Connections of clients that have gone may be closed a moment later.
  for (int i = 0; i < 200 && descriptors() > before; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(descriptors() <= before);
  const auto below = processes_below(server.pid());
  CHECK(below.size() == 2);
  CHECK(server.stop() == 0);
  CHECK(all_gone(below));
}

TEST_CASE("what can't be divided among ranks is told in one line") {
  const Scratch scratch;
  const std::string model = model_dir(scratch);
  const auto refused = [&](const std::string& plan, const std::string& what) {
    const Run run = run_drydock({"serve", scratch.write("plan.json", plan), "--engine", "cpu", "--model-path", model,
                                 "--random-weights", "7", "--port", "0"});
    CHECK(run.exit_code == 2);
    CHECK(lines(run.err) == 1);
    CHECK_MESSAGE(run.err.find(what) != std::string::npos, run.err);
  };
  refused(plan_of("agg", pool_of("worker", 1, 4)),
          "config.json: field 'num_key_value_heads': 2 can't be divided among 4");
  refused(plan_of("agg", pool_of("worker", 1, 128)), "field 'tp': 128 ranks of a worker; engine cpu has 64 at most");
  std::string pipeline = plan_of("agg", pool_of("worker", 1, 2));
  pipeline.replace(pipeline.find("\"tp\": 2"), 7, "\"tp\": 2, \"pp\": 2");
  refused(pipeline, "engine cpu computes with tp alone");
  const Run by_hand = run_drydock({"rank", "worker/0:1"});
  CHECK(by_hand.exit_code == 2);
  CHECK(by_hand.err == "drydock: rank: drydock serve begins it; it is no command for people\n");
}

}  // namespace drydock::tests
