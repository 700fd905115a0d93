#pragma once
// The workers of a deployment as threads of this process, begun anew when their engines fail.
#include <memory>
#include <string>
#include <vector>

#include "runtime/dispatcher.h"
#include "runtime/worker.h"

namespace drydock::runtime {

// Makes a worker's engine; may take long. Throws core::Error.
using EngineMaker = std::function<std::unique_ptr<Engine>()>;

struct LocalWorker {
  WorkerSpec spec;
  EngineMaker engine;
  int ranks = 1;  // processes that its engine computes in
};

class LocalFleet {
 public:
  // Makes the engines, one after the other, and has the workers join. Throws core::Error when one can't be made.
  // `pause`: before one is begun anew the first time, then twice as long each time.
  LocalFleet(Dispatcher& dispatcher, std::vector<LocalWorker> workers,
             std::chrono::milliseconds pause = std::chrono::milliseconds(500));
  ~LocalFleet();  // ends the workers before the dispatcher ends; undrained, what they had is lost
  LocalFleet(const LocalFleet&) = delete;
  LocalFleet& operator=(const LocalFleet&) = delete;

  void check() const;           // Worker::check() of all
  std::string failure() const;  // of the last engine that failed; empty: none

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace drydock::runtime
