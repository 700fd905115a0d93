// What the HTTP server costs: a child process holds many streams, this one serves them, and tokens are the time at
// which they were made, so that the client sees how long each was on its way. usage: drydock_http_bench STREAMS
// TOKENS_PER_S SECONDS [THREADS [together]] TOKENS_PER_S of each stream; 0: as fast as they are taken from the service,
// TOKENS_AT_ONCE of 1. "together": all streams get their tokens at the same moment, as from one engine's steps; else at
// moments of their own.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/http_server.h"
#include "tests/http_client.h"
#include "tests/runtime_fake_service.h"
#include "tests/runtime_http_bed.h"

namespace {

using namespace drydock;
using runtime::Clock;

// Microseconds since a start that both processes know.
class Stopwatch {
 public:
  int64_t us() const { return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start_).count(); }

 private:
  Clock::time_point start_ = Clock::now();
};

// A token is a number, in text with blanks around.
class StampCodec : public runtime::TextCodec {
 public:
  std::vector<runtime::Token> encode(std::string_view text, bool) const override {
    return std::vector<runtime::Token>(std::max<size_t>(text.size() / 4, 1), 1);
  }
  std::string bytes(runtime::Token token) const override { return std::to_string(token) + " "; }
  std::string chat_prompt(std::span<const runtime::ChatMessage>) const override { return "chat"; }
  std::span<const runtime::Token> stop_tokens() const override { return {}; }
  int64_t vocabulary() const override { return int64_t{1} << 31; }
};

struct Plan {
  int streams = 0;
  double tokens_per_s = 0, seconds = 0;
  int threads = 2;
  bool together = false;
};

double cpu_seconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Seen {
  int64_t tokens = 0, events = 0, finished = 0;
  std::vector<float> latencies_us;  // of the newest token of an event
};

int connect_to(int port) {
  const int out = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(out, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::perror("connect"), std::_Exit(1);
  return out;
}

// Counts numbers in the texts of what was read; an event is never cut between two reads, since each was one write.
void look(std::string_view bytes, int64_t now_us, bool steady, Seen& seen) {
  constexpr std::string_view kText = "\"text\":\"";
  for (size_t at = bytes.find(kText); at != std::string_view::npos; at = bytes.find(kText, at)) {
    at += kText.size();
    const std::string_view text = bytes.substr(at, bytes.find('"', at) - at);
    const int64_t tokens = std::count(text.begin(), text.end(), ' ');
    seen.tokens += tokens;
    ++seen.events;
    if (tokens == 0 || !steady) continue;
    const size_t last = text.find_last_of(' ', text.size() - 2);
    const std::string_view number = text.substr(last == std::string_view::npos ? 0 : last + 1);
    int64_t stamp = 0;
    std::from_chars(number.data(), number.data() + number.size(), stamp);
    seen.latencies_us.push_back(static_cast<float>(now_us - stamp));
  }
  if (bytes.find("[DONE]") != std::string_view::npos) ++seen.finished;
}

void be_client(const Plan& plan, int port, const Stopwatch& watch, int64_t tokens_each) {
  const std::string request =
      tests::post("/v1/completions", "{\"prompt\": \"a prompt of some length\", \"stream\": true, \"max_tokens\": " +
                                         std::to_string(tokens_each) + "}");
  const int poll = epoll_create1(0);
  Seen seen;
  std::vector<char> buffer(1 << 20);
  std::vector<epoll_event> ready(512);
  const int64_t begun = watch.us();
  int64_t all_open = 0;
  const auto drain = [&](int wait_ms) {
    const int count = epoll_wait(poll, ready.data(), static_cast<int>(ready.size()), wait_ms);
    for (int i = 0; i < count; ++i) {
      const ssize_t got = ::recv(ready[static_cast<size_t>(i)].data.fd, buffer.data(), buffer.size(), 0);
      if (got <= 0) std::fprintf(stderr, "a stream was cut\n"), std::_Exit(1);
      look({buffer.data(), static_cast<size_t>(got)}, watch.us(), all_open > 0, seen);
    }
  };
  for (int i = 0; i < plan.streams; ++i) {
    const int socket = connect_to(port);
    if (::send(socket, request.data(), request.size(), 0) < 0) std::_Exit(1);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = socket;
    epoll_ctl(poll, EPOLL_CTL_ADD, socket, &event);
    if (i % 16 == 0) drain(0);
  }
  all_open = watch.us();
  const int64_t tokens_before = seen.tokens;
  while (seen.finished < plan.streams) drain(1000);
  const double seconds = static_cast<double>(watch.us() - all_open) * 1e-6;
  auto& latencies = seen.latencies_us;
  std::sort(latencies.begin(), latencies.end());
  const auto percentile = [&](double p) {
    return latencies.empty()
               ? 0.0
               : static_cast<double>(latencies[static_cast<size_t>(p * static_cast<double>(latencies.size() - 1))]) *
                     1e-3;
  };
  std::printf(
      "%d streams, opened in %.2f s, then %.2f s: %.0f tokens/s in %.0f events/s; on the way ms p50 %.2f p99 %.2f "
      "p99.9 %.2f max %.2f\n",
      plan.streams, static_cast<double>(all_open - begun) * 1e-6, seconds,
      static_cast<double>(seen.tokens - tokens_before) / seconds, static_cast<double>(latencies.size()) / seconds,
      percentile(0.5), percentile(0.99), percentile(0.999), percentile(1));
  std::fflush(stdout);
  std::_Exit(0);
}

tests::Script script_of(const Plan& plan, const Stopwatch& watch, int64_t tokens_each) {
  tests::Script out;
  out.tokens.assign(static_cast<size_t>(tokens_each), 1);
  out.stamp = [&watch] { return static_cast<runtime::Token>(watch.us()); };
  if (plan.tokens_per_s <= 0) return out;
  const auto gap = static_cast<int64_t>(1e6 / plan.tokens_per_s);
  out.each = out.first = std::chrono::microseconds(gap);
  if (plan.together) out.first = std::chrono::microseconds(gap - watch.us() % gap);
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4)
    return std::fprintf(stderr, "usage: drydock_http_bench STREAMS TOKENS_PER_S SECONDS [THREADS [together]]\n"), 2;
  Plan plan{std::atoi(argv[1]), std::atof(argv[2]), std::atof(argv[3])};
  if (argc > 4) plan.threads = std::atoi(argv[4]);
  plan.together = argc > 5 && std::strcmp(argv[5], "together") == 0;
  // Flat out: so many that it takes about as long as was asked for at 400,000 tokens/s.
  const double each = plan.tokens_per_s > 0 ? plan.tokens_per_s * plan.seconds : 4e5 * plan.seconds / plan.streams;
  const auto tokens_each = std::max<int64_t>(std::llround(each), 1);
  rlimit files{65536, 65536};
  setrlimit(RLIMIT_NOFILE, &files);
  const Stopwatch watch;
  int port_pipe[2];
  if (::pipe(port_pipe) != 0) return 1;
  const pid_t child = ::fork();
  if (child == 0) {
    int port = 0;
    if (::read(port_pipe[0], &port, sizeof port) != sizeof port) std::_Exit(1);
    be_client(plan, port, watch, tokens_each);
  }
  tests::FakeService service([&](const runtime::Generation&) { return script_of(plan, watch, tokens_each); });
  service.longest = int64_t{1} << 40;
  const StampCodec codec;
  runtime::HttpOptions options = tests::quiet_options();
  options.threads = plan.threads;
  options.limits.unsent_bytes = size_t{64} << 20;
  runtime::HttpServer server(service, codec, options);
  server.start();
  const int port = server.port();
  const int files_before = tests::open_descriptors();
  const int64_t memory_before = tests::resident_bytes();
  const Stopwatch running;
  if (::write(port_pipe[1], &port, sizeof port) != sizeof port) return 1;
  int64_t most_memory = 0;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    most_memory = std::max(most_memory, tests::resident_bytes());
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  const double seconds = static_cast<double>(running.us()) * 1e-6;
  std::printf(
      "server and scripted service %.0f %% of a core, client %.0f %%; %.1f KiB a stream; descriptors %+d after\n",
      100 * cpu_seconds(RUSAGE_SELF) / seconds, 100 * cpu_seconds(RUSAGE_CHILDREN) / seconds,
      static_cast<double>(most_memory - memory_before) / 1024 / plan.streams, [&] {
        while (server.open_connections() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return tests::open_descriptors() - files_before;
      }());
  return status == 0 ? 0 : 1;
}
