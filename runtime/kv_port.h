#pragma once
// The port on which a worker hands out the KV that it holds, and the other end of it.
#include <memory>
#include <string>

#include "runtime/acceptor.h"
#include "runtime/worker.h"

namespace drydock::runtime {

class KvPort {
 public:
  KvPort(const Address& address, std::string secret);
  ~KvPort();
  KvPort(const KvPort&) = delete;
  KvPort& operator=(const KvPort&) = delete;
  int port() const;
  // From now on it answers for `worker`; null: for none, and no question is under way when it returns.
  void serve(Worker* worker);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Connects to the KV port "host:port".
std::unique_ptr<KvPeer> connect_kv(const std::string& address, const std::string& secret);

}  // namespace drydock::runtime
