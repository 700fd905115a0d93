#pragma once
// A worker in a process of its own: joins a router and does as it is told; joins again when the router comes anew.
#include <memory>
#include <string>

#include "runtime/socket.h"
#include "runtime/worker.h"

namespace drydock::runtime {

struct RemoteWorkerOptions {
  Address router;
  std::string secret;
  std::string host = "127.0.0.1";  // of the KV port, as others reach it
  int kv_port = 0;                 // 0: any free one
  std::function<void(const std::string&)> log;
};

class RemoteWorker {
 public:
  // Throws core::Error when the KV port can't be had.
  RemoteWorker(WorkerSpec spec, std::unique_ptr<Engine> engine, RemoteWorkerOptions options);
  ~RemoteWorker();
  RemoteWorker(const RemoteWorker&) = delete;
  RemoteWorker& operator=(const RemoteWorker&) = delete;

  std::string failure() const;  // of its engine: it can do nothing more; empty: none
  bool joined() const;
  Worker& worker();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace drydock::runtime
