#pragma once
// What the HTTP side asks of the workers' side, and what it can tell of their state.
#include <memory>
#include <string>
#include <vector>

#include "runtime/generation.h"

namespace drydock::runtime {

// What became of a request to generate.
enum class Admission : uint8_t { accepted, overloaded, draining, too_long };

// A worker as it is now; counts since the service began, restarts included.
struct WorkerStats {
  std::string name;  // "decode/0"
  std::string role;  // "worker", "prefill" or "decode"
  bool alive = false;
  int64_t waiting = 0, running = 0;
  int64_t kv_blocks = 0, kv_blocks_used = 0;  // used: held by sequences; the prefix cache's spare ones are free
  int64_t preemptions = 0, restarts = 0;
  int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0, steps = 0;
  double step_seconds = 0;
  int64_t drafts = 0, draft_tokens = 0,
          accepted_tokens = 0;  // sequences drafted for, step by step; their drafts; right
};

struct ServiceStats {
  std::vector<WorkerStats> workers;
  int64_t queued = 0, running = 0;  // generations: not sent to a worker yet, and sent
  int64_t accepted = 0, refused = 0, finished = 0, failed = 0, cancelled = 0, migrated = 0;
  int64_t kv_transfers = 0, kv_transfers_failed = 0, kv_transferred_bytes = 0;
  double kv_transfer_seconds = 0;
};

// The dispatcher is one: it sends generations to workers. Safe to call from many threads.
class Service {
 public:
  using Id = uint64_t;
  virtual ~Service() = default;
  // accepted: `id` is set and the listener will be told; it may be told before this returns. Else it is never told.
  virtual Admission submit(Generation generation, std::shared_ptr<Listener> listener, Id& id) = 0;
  // Ends it with Finish::cancelled, soon; unknown and finished ids are ignored.
  virtual void cancel(Id id) = 0;
  virtual bool ready() const = 0;                // every phase has a live worker, and none is asked to stop
  virtual int64_t longest_sequence() const = 0;  // prompt and answer together [tokens]
  virtual double retry_after_s() const = 0;      // for an overloaded answer
  virtual ServiceStats stats() const = 0;
};

}  // namespace drydock::runtime
