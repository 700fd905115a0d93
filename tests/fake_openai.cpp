#include "tests/fake_openai.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <memory>
#include <queue>
#include <stdexcept>

namespace drydock::tests {
namespace {

using FakeClock = std::chrono::steady_clock;

std::string chunked(const std::string& bytes) {
  char size[32];
  std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  return size + bytes + "\r\n";
}

}  // namespace

const char kFakeToken[] =
    R"({"id":"cmpl-1","object":"text_completion","created":1,"model":"fake","choices":[{"index":0,"text":" a","logprobs":null,"finish_reason":null}]})";

std::string fake_event(const std::string& json) { return "data: " + json + "\n\n"; }

FakeAnswer FakeAnswer::stream(int tokens, double first_ms, double gap_ms, int prompt_tokens) {
  FakeAnswer out;
  out.headers = "Content-Type: text/event-stream\r\n";
  for (int i = 0; i < tokens; ++i) out.pieces.push_back({first_ms + i * gap_ms, fake_event(kFakeToken)});
  out.pieces.back().bytes += fake_event(R"({"choices":[{"index":0,"text":"","finish_reason":"length"}]})") +
                             fake_event(R"({"choices":[],"usage":{"prompt_tokens":)" + std::to_string(prompt_tokens) +
                                        R"(,"completion_tokens":)" + std::to_string(tokens) + "}}") +
                             fake_event("[DONE]");
  return out;
}

struct FakeServer::Loop {
  // The next piece of an answer that is under way.
  struct Write {
    FakeClock::time_point at, begin;
    uint64_t order;
    int fd;
    uint64_t life;
    std::shared_ptr<const FakeAnswer> answer;
    size_t piece;
    bool operator<(const Write& o) const { return at != o.at ? at > o.at : order > o.order; }
  };
  struct Client {
    std::string in;
    uint64_t life;
  };

  FakeServer& server;
  int poll = ::epoll_create1(0);
  std::map<int, Client> clients = {};
  std::priority_queue<Write> writes = {};
  uint64_t order = 0, lives = 0;

  ~Loop() {
    for (const auto& [fd, client] : clients) ::close(fd);
    ::close(poll);
  }
  void watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
  }
  void accept() {
    for (int fd; (fd = ::accept(server.listener_, nullptr, nullptr)) >= 0;) {
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      clients[fd] = {"", ++lives};
      watch(fd);
    }
  }
  void end(int fd) {
    clients.erase(fd);
    ::close(fd);
  }
  void read(int fd) {
    char bytes[65536];
    const ssize_t count = ::read(fd, bytes, sizeof bytes);
    if (count <= 0) return end(fd);
    std::string& in = clients[fd].in;
    in.append(bytes, static_cast<size_t>(count));
    for (;;) {
      const size_t head = in.find("\r\n\r\n");
      if (head == std::string::npos) return;
      const size_t length_at = in.find("Content-Length: ");
      const size_t length = length_at < head ? std::stoul(in.substr(length_at + 16)) : 0;
      if (in.size() < head + 4 + length) return;
      const size_t path = in.find(' ') + 1;
      answer(fd, server.script_(in.substr(path, in.find(' ', path) - path), in.substr(head + 4, length)));
      in.erase(0, head + 4 + length);
    }
  }
  void answer(int fd, FakeAnswer a) {
    const auto now = FakeClock::now();
    later({now, now, ++order, fd, clients[fd].life, std::make_shared<const FakeAnswer>(std::move(a)), 0});
  }
  void later(Write w) {
    if (w.piece < w.answer->pieces.size())
      w.at = w.begin + std::chrono::microseconds(static_cast<int64_t>(w.answer->pieces[w.piece].at_ms * 1e3));
    writes.push(std::move(w));
  }
  void write(Write w) {
    const auto client = clients.find(w.fd);
    if (client == clients.end() || client->second.life != w.life) return;
    const FakeAnswer& a = *w.answer;
    const bool last = w.piece + 1 >= a.pieces.size();
    std::string bytes;
    if (w.piece == 0)
      bytes = "HTTP/1.1 " + std::to_string(a.status) + " Said\r\n" + a.headers + "Transfer-Encoding: chunked\r\n\r\n";
    if (w.piece < a.pieces.size()) bytes += chunked(a.pieces[w.piece].bytes);
    if (last && !a.breaks) bytes += "0\r\n\r\n";
    (void)!::send(w.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (last && a.breaks) end(w.fd);
    ++w.piece, w.order = ++order;
    if (!last) later(std::move(w));
  }
  void write_due() {
    while (!writes.empty() && writes.top().at <= FakeClock::now()) {
      Write w = writes.top();
      writes.pop();
      write(std::move(w));
    }
  }
  void turn() {
    epoll_event events[64];
    timespec pause{0, 20'000'000};
    if (!writes.empty()) {
      const auto left = std::max(FakeClock::duration(0), writes.top().at - FakeClock::now());
      pause.tv_nsec = std::min<long>(pause.tv_nsec, std::chrono::nanoseconds(left).count());
    }
    const int ready = ::epoll_pwait2(poll, events, 64, &pause, nullptr);
    for (int i = 0; i < ready; ++i) {
      if (events[i].data.fd == server.listener_)
        accept();
      else
        read(events[i].data.fd);
    }
    write_due();
  }
};

FakeServer::FakeServer(Script script) : script_(std::move(script)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 4096) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw std::runtime_error("no port for the fake server");
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { run(); });
}

FakeServer::~FakeServer() {
  ends_ = true;
  thread_.join();
  ::close(listener_);
}

void FakeServer::run() {
  Loop loop{*this};
  loop.watch(listener_);
  while (!ends_) loop.turn();
}

}  // namespace drydock::tests
