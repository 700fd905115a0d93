#pragma once
// A port with a thread for each connection, of which there are only so many.
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/socket.h"

namespace drydock::runtime {

class Acceptor {
 public:
  // `serve` owns the connection until it returns; it must not throw, and must return soon after `stop` of stop() ran.
  // Throws core::Error when the address can't be had.
  Acceptor(const Address& address, int most_connections, std::function<void(Socket)> serve);
  ~Acceptor();  // accepts no more and waits for all `serve` to return
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  int port() const { return port_; }
  void stop();  // accepts no more
  int connections() const;

 private:
  struct Served {
    std::thread thread;
    bool over = false;
  };
  void run();
  void reap(bool all);

  int port_ = 0;
  Socket listener_;
  size_t most_;
  std::function<void(Socket)> serve_;
  mutable std::mutex mutex_;
  bool stopping_ = false;
  std::list<Served> served_;
  std::thread thread_;
};

}  // namespace drydock::runtime
