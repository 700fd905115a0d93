#pragma once
// One engine instance at work: a thread that forms batches with the schedulers of its ranks, has the engine run them
// and tells what came of it.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/drafts.h"
#include "runtime/engine.h"
#include "runtime/messages.h"
#include "scheduler/scheduler.h"

namespace drydock::runtime {

// Whom a worker tells; called from its threads, must return at once.
class WorkerSink {
 public:
  virtual ~WorkerSink() = default;
  virtual void news(std::vector<News> news) = 0;
  // The engine failed: nothing more will come, and what the worker had is gone.
  virtual void lost(const std::string& reason) = 0;
};

// A connection to a worker that holds KV.
class KvPeer {
 public:
  virtual ~KvPeer() = default;
  virtual void ask(const KvFetch& fetch) = 0;  // answers come in the order of the questions
  // The next answer. nullopt: none has come for kHeartbeat, and the peer is there. Throws core::Error, as ask() does,
  // when it is gone or silent.
  virtual std::optional<KvPiece> next() = 0;
  virtual bool ended() const { return false; }  // the other side has ended the connection
};
// To the KV port `address`. Throws core::Error when it can't be had.
using KvConnect = std::function<std::unique_ptr<KvPeer>(const std::string& address)>;

struct WorkerSpec {
  std::string name = "worker/0";
  Stage stage = Stage::whole;
  scheduler::Policy policy;  // counts_tokens is set by the worker
  int64_t kv_blocks = 1, block_tokens = 32;
  simulator::TransferSpec transfer;  // of engines without KV: what moving it takes, scaled
  std::string kv_address;            // where others fetch its KV; empty: nowhere
  // For all sequences that decode in a step at once; called on the worker's thread. May be empty.
  DraftFunction drafts;
  std::function<void(Attempt)> forget_drafts;
  // Where the engine overlaps, and nothing is drafted: the next batch is formed, and results are told, while a step is
  // computed. Then an answer's stop token is seen a step late: its sequence is in one more batch.
  bool overlap = true;
};

// Safe to call from many threads.
class Worker {
 public:
  // `sink` must outlive the worker. `connect` is for decode stages.
  Worker(WorkerSpec spec, std::unique_ptr<Engine> engine, WorkerSink& sink, KvConnect connect);
  ~Worker();  // ends after the step under way; tells nothing more
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start(Start start);
  void cancel(Attempt attempt);   // ends it without news; unknown ones are ignored
  void release(Attempt attempt);  // a prefilled attempt's KV is not needed any longer
  void forget_all();              // the dispatcher is gone: as if all were cancelled and released
  // `answer` is called from another thread, or at once.
  void fetch(const KvFetch& fetch, std::function<void(KvPiece)> answer);

  Hello hello() const;
  Pulse pulse() const;
  // Throws std::logic_error when blocks and requests don't add up, or when anything is left although nothing runs and
  // nothing is held. For tests; waits for the step under way.
  void check() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Connections between workers of one process, by their names.
class LocalKv {
 public:
  void add(const std::string& name, Worker* worker);
  // Returns when no question to it is being asked; who waits for its answers is told that it is gone. With `worker`:
  // only if the name is that worker's.
  void remove(const std::string& name, const Worker* worker = nullptr);
  std::unique_ptr<KvPeer> connect(const std::string& name);

 private:
  struct State;
  std::shared_ptr<State> state_ = make();
  static std::shared_ptr<State> make();
};

}  // namespace drydock::runtime
