#pragma once
// The router's port, on which workers of other processes and machines join.
#include <memory>
#include <string>

#include "runtime/acceptor.h"
#include "runtime/dispatcher.h"

namespace drydock::runtime {

class WorkerPort {
 public:
  // `log` is told in one line each who came, who left and who was refused; may be empty.
  WorkerPort(Dispatcher& dispatcher, const Address& address, std::string secret,
             std::function<void(const std::string&)> log);
  ~WorkerPort();  // ends all connections
  WorkerPort(const WorkerPort&) = delete;
  WorkerPort& operator=(const WorkerPort&) = delete;
  int port() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace drydock::runtime
