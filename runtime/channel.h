#pragma once
// A connection between two parts of a deployment: both have proved that they know the shared secret, and exchange
// frames (wire.h).
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/socket.h"
#include "runtime/wire.h"

namespace drydock::runtime {

struct Frame {
  FrameKind kind{};
  Bytes body;
};

// The value of the environment variable `name`, at least 16 characters. Throws core::Error naming it.
std::string secret_of(const std::string& name);

// HMAC-SHA-256 challenge and response in both directions. The secret itself never travels; what follows is checksummed
// but neither encrypted nor signed.
class Channel {
 public:
  static constexpr std::chrono::milliseconds kHandshake{2000};

  // As the side that was connected to, or the one that connects. Throws core::Error when the other does not prove
  // itself within kHandshake, in which it gets at most a few hundred bytes of memory.
  static Channel accepted(Socket socket, const std::string& secret);
  static Channel connected(Socket socket, const std::string& secret, std::chrono::milliseconds limit = kHandshake);

  // One thread sends, one receives. Both throw core::Error.
  void send(FrameKind kind, std::span<const std::byte> body);
  Frame receive(std::chrono::milliseconds limit);  // silence as long as that is an error
  void shut_down() { socket_.shut_down(); }
  bool ended() const { return socket_.ended(); }

 private:
  explicit Channel(Socket socket) : socket_(std::move(socket)) {}
  Frame receive_handshake(Clock::time_point deadline);
  Bytes expect(FrameKind kind, size_t bytes, Clock::time_point deadline);

  Socket socket_;
};

// A channel with a thread that sends what is posted, and every kHeartbeat the frame that `pulse` makes.
class Line {
 public:
  Line(Channel channel, std::function<Frame()> pulse);
  ~Line();
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  // Returns at once. Where too much waits to be sent, or after an error, the line is shut down.
  void post(FrameKind kind, Bytes body);
  Frame receive() { return channel_.receive(kSilence); }  // one thread
  void close();                                           // receive() throws from now on

 private:
  void run();

  static constexpr size_t kMostWaitingBytes = 256u << 20;
  Channel channel_;
  std::function<Frame()> pulse_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Frame> waiting_;
  size_t waiting_bytes_ = 0;
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace drydock::runtime
