#pragma once
// Sends generations to workers by the rules of the simulator's clusters, and elsewhere when a worker dies.
#include <memory>
#include <string>
#include <vector>

#include "runtime/messages.h"
#include "runtime/service.h"
#include "scheduler/router.h"

namespace drydock::runtime {

// The dispatcher's end of a worker, in this process or behind a connection. Called from the dispatcher's thread, must
// return at once; what can't be sent is lost, and lost() will be told.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void start(const Start& start) = 0;
  virtual void cancel(Attempt attempt) = 0;
  virtual void release(Attempt attempt) = 0;
  virtual Pulse pulse() const = 0;
  virtual void close() = 0;  // the dispatcher takes it for dead
};

struct DispatcherSpec {
  struct Pool {
    Stage stage = Stage::whole;
    int replicas = 1;
  };
  std::vector<Pool> pools{{}};  // one whole pool, or prefill and decode
  scheduler::RouterConfig router;
  int64_t local_prefill_tokens = 0;  // shorter prompts are computed by the decode pool itself
  int migration_limit = 3;
  int64_t most_waiting = 4096;  // generations without a first token: more are overload
  int64_t longest_sequence = 1 << 20;
  double inhibit_us = scheduler::kInhibitUs;  // how long a worker that died gets nothing, where others can do its work
  double longest_step_s = 60;                 // a worker whose step takes longer is dead
};

// The name of a pool's worker: "worker/0", "prefill/1", "decode/0".
std::string worker_name(Stage stage, int index);

class Dispatcher : public Service {
 public:
  explicit Dispatcher(DispatcherSpec spec);
  ~Dispatcher() override;  // generations that are left end as failed
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  Admission submit(Generation generation, std::shared_ptr<Listener> listener, Id& id) override;
  void cancel(Id id) override;
  bool ready() const override;
  int64_t longest_sequence() const override;
  double retry_after_s() const override;
  ServiceStats stats() const override;

  // The workers' side. A life is one worker from its coming to its end; news of one that is over are ignored.
  using Life = uint64_t;
  Life new_life();
  // One that has the name already is taken for dead. Throws core::Error where the deployment has no such worker.
  void join(Life life, const Hello& hello, std::shared_ptr<WorkerLink> link);
  void news(Life life, std::vector<News> news);
  void lost(Life life, const std::string& reason);

  void begin_drain();  // nothing new is accepted
  // begin_drain(), then waits until all answers are finished. False: `seconds` were over first, and the rest cancelled.
  bool drain(double seconds);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace drydock::runtime
