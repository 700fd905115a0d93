#include "runtime/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "core/error.h"

namespace drydock::runtime {
namespace {

std::string reason_of(int error) { return std::generic_category().message(error); }

// False: the deadline is over.
bool wait_for(int fd, short events, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd item{fd, events, 0};
    const int ready = ::poll(&item, 1, static_cast<int>(std::min<int64_t>(left, 1'000'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) throw core::Error("poll: " + reason_of(errno));
  }
}

// What is half open is noticed: 1 s of silence, then three questions a second apart.
void prepare(int fd) {
  const int one = 1, idle = 1, interval = 1, count = 3;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

using Found = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Found look_up(const Address& address, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (status != 0) throw core::Error("address '" + text_of(address) + "': " + ::gai_strerror(status));
  return {found, &::freeaddrinfo};
}

}  // namespace

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

void Socket::shut_down() {
  if (fd_ >= 0) ::shutdown(fd_, SHUT_RDWR);
}

bool Socket::ended() const {
  char byte = 0;
  const ssize_t got = ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

void Socket::write(std::span<const std::byte> bytes, Clock::time_point deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(fd_, POLLOUT, deadline)) throw core::Error("the other side takes no bytes");
    } else if (errno != EINTR) {
      throw core::Error("the connection broke: " + reason_of(errno));
    }
  }
}

void Socket::read(std::span<std::byte> bytes, Clock::time_point deadline) {
  while (!bytes.empty()) {
    const ssize_t got = ::recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<size_t>(got));
    } else if (got == 0) {
      throw core::Error("the other side ended the connection");
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(fd_, POLLIN, deadline)) throw core::Error("the other side is silent");
    } else if (errno != EINTR) {
      throw core::Error("the connection broke: " + reason_of(errno));
    }
  }
}

Address parse_address(const std::string& text, std::string_view what) {
  const size_t colon = text.rfind(':');
  Address out;
  const char* from = text.data() + (colon == std::string::npos ? text.size() : colon + 1);
  const char* to = text.data() + text.size();
  const auto [end, status] = std::from_chars(from, to, out.port);
  if (colon != std::string::npos) out.host = text.substr(0, colon);
  if (out.host.starts_with('[') && out.host.ends_with(']')) out.host = out.host.substr(1, out.host.size() - 2);
  if (status != std::errc{} || end != to || out.host.empty() || out.port < 0 || out.port > 65535)
    throw core::Error(std::string(what) + " '" + text.substr(0, 80) + "': want host:port, such as 10.0.0.1:8100");
  return out;
}

std::string text_of(const Address& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return (v6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

Socket listen_on(const Address& address, int& port) {
  const Found found = look_up(address, AI_PASSIVE);
  Socket out(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int one = 1;
  if (out.open()) ::setsockopt(out.fd(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (!out.open() || ::bind(out.fd(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(out.fd(), 128) != 0)
    throw core::Error("can't listen on " + text_of(address) + ": " + reason_of(errno));
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  ::getsockname(out.fd(), reinterpret_cast<sockaddr*>(&bound), &size);
  port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                           : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return out;
}

Socket connect_to(const Address& address, std::chrono::milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  const Found found = look_up(address, 0);
  int error = 0;
  for (const addrinfo* at = found.get(); at; at = at->ai_next) {
    Socket out(::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!out.open()) {
      error = errno;
      continue;
    }
    prepare(out.fd());
    if (::connect(out.fd(), at->ai_addr, at->ai_addrlen) == 0) return out;
    error = errno;
    if (error != EINPROGRESS) continue;
    error = ETIMEDOUT;
    if (!wait_for(out.fd(), POLLOUT, deadline)) continue;
    socklen_t size = sizeof(error);
    ::getsockopt(out.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) return out;
  }
  throw core::Error("can't connect to " + text_of(address) + ": " + reason_of(error));
}

Socket accept_from(Socket& listener, std::chrono::milliseconds limit) {
  if (!wait_for(listener.fd(), POLLIN, Clock::now() + limit)) return {};
  Socket out(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (out.open()) {
    prepare(out.fd());
  } else {
    // Out of descriptors or shut down: poll() says ready at once, and must not be asked in a hurry.
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return out;
}

}  // namespace drydock::runtime
