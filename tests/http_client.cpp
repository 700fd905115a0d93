#include "tests/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

namespace drydock::tests {

std::vector<std::string> Response::events() const {
  std::vector<std::string> out;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\n\n", at);
    if (end == std::string::npos || !body.substr(at).starts_with("data: "))
      throw std::runtime_error("no event at: " + body.substr(at, 60));
    out.push_back(body.substr(at + 6, end - at - 6));
    at = end + 2;
  }
  return out;
}

RawClient::RawClient(int port, int receive_buffer) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (receive_buffer > 0) setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  const int on = 1;
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    throw std::runtime_error("can't connect to port " + std::to_string(port));
}

RawClient::~RawClient() { close(); }

void RawClient::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

void RawClient::reset() {
  const linger at_once{1, 0};
  setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close();
}

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    pollfd ready{socket_, POLLOUT, 0};
    if (::poll(&ready, 1, 5000) != 1) return false;
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool RawClient::more() {
  pollfd ready{socket_, POLLIN, 0};
  if (::poll(&ready, 1, 5000) != 1) return false;
  char buffer[16384];
  const ssize_t got = ::recv(socket_, buffer, sizeof buffer, 0);
  if (got <= 0) return false;
  in_.append(buffer, static_cast<size_t>(got));
  return true;
}

std::string RawClient::read_until(std::string_view text) {
  while (in_.find(text) == std::string::npos && more()) {
  }
  return in_;
}

bool RawClient::closed_within(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd ready{socket_, POLLIN, 0};
    if (::poll(&ready, 1, static_cast<int>(left.count())) != 1) continue;
    char buffer[16384];
    if (::recv(socket_, buffer, sizeof buffer, 0) <= 0) return true;
  }
}

std::optional<Response> RawClient::read(bool head_only) {
  size_t head = 0;
  while ((head = in_.find("\r\n\r\n")) == std::string::npos)
    if (!more()) return std::nullopt;
  Response out;
  if (!in_.starts_with("HTTP/1.1 ")) throw std::runtime_error("no response: " + in_.substr(0, 60));
  out.status = std::stoi(in_.substr(9, 3));
  for (size_t at = in_.find("\r\n") + 2; at < head + 2;) {
    const size_t end = in_.find("\r\n", at), colon = in_.find(": ", at);
    std::string name = in_.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    out.headers[name] = in_.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  in_.erase(0, head + 4);
  if (head_only || out.status == 100) return out;
  if (out.headers.contains("content-length")) {
    const size_t length = std::stoul(out.headers["content-length"]);
    while (in_.size() < length)
      if (!more()) return std::nullopt;
    out.body = in_.substr(0, length);
    in_.erase(0, length);
  } else if (out.headers.contains("transfer-encoding")) {
    for (;;) {
      size_t line = 0;
      while ((line = in_.find("\r\n")) == std::string::npos)
        if (!more()) return std::nullopt;
      const size_t size = std::stoul(in_.substr(0, line), nullptr, 16);
      while (in_.size() < line + 2 + size + 2)
        if (!more()) return std::nullopt;
      out.body += in_.substr(line + 2, size);
      in_.erase(0, line + 2 + size + 2);
      if (size == 0) break;
    }
  } else {
    while (more()) {
    }
    out.body.swap(in_);
  }
  return out;
}

std::string post(std::string_view path, std::string_view body, std::string_view headers) {
  std::string out = "POST " + std::string(path) + " HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n";
  out.append(headers).append("Content-Length: ").append(std::to_string(body.size())).append("\r\n\r\n").append(body);
  return out;
}

std::string get(std::string_view path, std::string_view headers) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: here\r\n" + std::string(headers) + "\r\n";
}

}  // namespace drydock::tests
