// Streams chats from any OpenAI-compatible server on this machine, so that servers can be held against each other.
// usage: drydock_http_against PORT MODEL CONNECTIONS REQUESTS_EACH MAX_TOKENS
// Prints wall time, requests, events and characters of content a second.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tests/http_client.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Totals {
  int64_t events = 0, characters = 0, requests = 0;
  std::vector<double> first_ms;
};

struct Stream {
  std::unique_ptr<drydock::tests::RawClient> client;
  int left = 0;
  std::string tail;  // what was read behind the last line end
  Clock::time_point sent;
  bool first = true;
};

// Content is counted in bytes as JSON writes it; servers that are compared say the same text.
void count_line(std::string_view line, Stream& stream, Totals& totals, bool& done) {
  if (!line.starts_with("data: ")) return;
  if (line.starts_with("data: [DONE]")) return void(done = true);
  ++totals.events;
  constexpr std::string_view kContent = "\"content\":\"";
  const size_t at = line.find(kContent);
  if (at == std::string_view::npos) return;
  const size_t begin = at + kContent.size(), end = line.find('"', begin);
  totals.characters += static_cast<int64_t>(end - begin);
  if (end > begin && stream.first) {
    stream.first = false;
    totals.first_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - stream.sent).count());
  }
}

bool read_some(Stream& stream, std::vector<char>& buffer, Totals& totals) {
  const ssize_t got = ::recv(stream.client->descriptor(), buffer.data(), buffer.size(), 0);
  if (got <= 0) std::fprintf(stderr, "the server closed a stream\n"), std::exit(1);
  stream.tail.append(buffer.data(), static_cast<size_t>(got));
  if (stream.tail.starts_with("HTTP/1.1 ") && stream.tail.compare(9, 3, "200") != 0)
    std::fprintf(stderr, "%s\n", stream.tail.substr(0, 300).c_str()), std::exit(1);
  bool done = false;
  size_t at = 0;
  for (size_t end; (end = stream.tail.find('\n', at)) != std::string::npos; at = end + 1)
    count_line(std::string_view(stream.tail).substr(at, end - at), stream, totals, done);
  stream.tail.erase(0, at);
  return done;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6)
    return std::fprintf(stderr, "usage: drydock_http_against PORT MODEL CONNECTIONS REQUESTS_EACH MAX_TOKENS\n"), 2;
  const int connections = std::atoi(argv[3]);
  const std::string request = drydock::tests::post(
      "/v1/chat/completions", "{\"model\": \"" + std::string(argv[2]) + "\", \"stream\": true, \"max_tokens\": " +
                                  argv[5] + ", \"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}");
  std::vector<Stream> streams(static_cast<size_t>(connections));
  Totals totals;
  std::vector<char> buffer(1 << 18);
  std::vector<epoll_event> ready(256);
  const int poll = epoll_create1(0);
  const auto send = [&](Stream& stream) {
    stream.sent = Clock::now();
    stream.first = true;
    stream.client->send(request);
  };
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i].client = std::make_unique<drydock::tests::RawClient>(std::atoi(argv[1]));
    streams[i].left = std::atoi(argv[4]);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    epoll_ctl(poll, EPOLL_CTL_ADD, streams[i].client->descriptor(), &event);
  }
  const auto begun = Clock::now();
  for (Stream& stream : streams) send(stream);
  for (int open = connections; open > 0;) {
    const int count = epoll_wait(poll, ready.data(), static_cast<int>(ready.size()), 10'000);
    if (count <= 0) return std::fprintf(stderr, "nothing came for 10 s\n"), 1;
    for (int i = 0; i < count; ++i) {
      Stream& stream = streams[ready[static_cast<size_t>(i)].data.u64];
      if (!read_some(stream, buffer, totals)) continue;
      ++totals.requests;
      stream.tail.clear();
      if (--stream.left > 0)
        send(stream);
      else
        --open;
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  std::sort(totals.first_ms.begin(), totals.first_ms.end());
  const auto percentile = [&](double p) {
    return totals.first_ms.empty()
               ? 0.0
               : totals.first_ms[static_cast<size_t>(p * static_cast<double>(totals.first_ms.size() - 1))];
  };
  const auto rate = [&](int64_t n) { return static_cast<double>(n) / seconds; };
  std::printf(
      "%d connections, %.2f s: %.1f requests/s, %.0f events/s, %.0f characters/s; first content after p50 %.2f ms, p99 "
      "%.2f ms\n",
      connections, seconds, rate(totals.requests), rate(totals.events), rate(totals.characters), percentile(0.5),
      percentile(0.99));
  return 0;
}
