#pragma once
// TCP with deadlines on every wait.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "runtime/generation.h"

namespace drydock::runtime {

// Owns a descriptor.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  bool open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  void shut_down();    // who waits on it wakes up; from any thread
  bool ended() const;  // the other side has, or the connection broke; for sockets from which nothing is to come

  // All of the bytes, or core::Error: the deadline, an end, an error.
  void write(std::span<const std::byte> bytes, Clock::time_point deadline);
  void read(std::span<std::byte> bytes, Clock::time_point deadline);

 private:
  int fd_ = -1;
};

struct Address {
  std::string host;
  int port = 0;
};
// "host:port" or "[v6]:port". Throws core::Error naming `what`.
Address parse_address(const std::string& text, std::string_view what);
std::string text_of(const Address& address);

// Throws core::Error. `port` 0: any free one.
Socket listen_on(const Address& address, int& port);
Socket connect_to(const Address& address, std::chrono::milliseconds limit);

// The next connection, or a socket that is not open after `limit`, after shut_down() and where descriptors ran out.
Socket accept_from(Socket& listener, std::chrono::milliseconds limit);

}  // namespace drydock::runtime
