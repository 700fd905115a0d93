#pragma once
// Which requests run in an engine's next step: continuous batching, prompt chunks, KV admission and preemption. Pure
// logic, driven by predicted times in the simulator and by real ones in the runtime.
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "scheduler/kv_blocks.h"

namespace drydock::scheduler {

enum class Order : uint8_t { arrival, priority };        // whom to admit first; the last is preempted first
enum class Preemption : uint8_t { recompute, swap };     // what becomes of a preempted request's KV
inline constexpr int64_t kUnbounded = int64_t{1} << 40;  // tokens; more than any prompt or budget

// How one engine fills its steps. The presets below are the three engines' rules.
struct Policy {
  int64_t max_tokens = 8192;    // of one step, prompts and decode together; under speculation each draft counts
  int64_t max_sequences = 256;  // running at once
  bool mixes = true;            // prompts beside decode in a step; false: prompts go first, decode waits
  bool chunks = true;           // a prompt may take several steps; false: one larger than max_tokens runs whole, alone
  // KV room kept at admission for the output still to come: this share of it, at most reserve_most tokens a request.
  double reserve = 0;
  int64_t reserve_most = kUnbounded;
  bool reserves_own_output = false;  // of the request to admit: all of it (up to reserve_most), whatever `reserve` says
  double watermark = 0;              // share of the blocks that admission leaves free
  Order order = Order::arrival;
  Preemption preemption = Preemption::recompute;
  // Steps that are launched before the results of an earlier one are known: a finished request stays in the batch, and
  // a new one stays out of it, for as many.
  int result_delay = 0;
  bool prefix_cache = false;
  // Under speculative decoding: tokens of the step per decoding sequence, and tokens it wins on average.
  int64_t decode_tokens = 1;
  double decode_growth = 1;
  // Runtimes, which know what each step won: Request::decode_steps are tokens, decode_growth is not looked at, and a
  // request's step of decode makes one token unless won() told another number.
  bool counts_tokens = false;
};

// vLLM V1: running requests first, in order, then waiting ones, all within max_num_batched_tokens; a request that finds
// no block preempts the last. vllm/v1/core/sched/scheduler.py, Scheduler.schedule().
Policy vllm(int64_t max_num_batched_tokens, int64_t max_num_seqs);
// SGLang: as long as a waiting prompt can be added, a step holds prompts only, up to chunked_prefill_size; running
// requests are taken to use new_token_ratio of the output they may still make, at most 4096 tokens, the new one all of
// it. python/sglang/srt/managers/schedule_policy.py, PrefillAdder; the ratio starts at 0.7 x conservativeness and
// decays to a seventh (0.14) of that, and is held here at the mean of the two.
Policy sglang(int64_t chunked_prefill_size, int64_t max_running_requests, double conservativeness = 1);
// TensorRT-LLM: generation first, then whole prompts within max_num_tokens; GUARANTEED_NO_EVICT admits a request only
// if all admitted ones can run to their ends. MAX_UTILIZATION (`evicts`) admits while there is room now. With overlap
// scheduling results come a step late. docs/source/torch/scheduler.md,
// cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp.
Policy trtllm(int64_t max_num_tokens, int64_t max_batch_size, bool evicts = false, bool overlaps = false);

using RequestId = int32_t;  // given by add(); used again once the request has left

struct Request {
  int64_t prompt_tokens = 1;         // > 0
  int64_t output_tokens = 1;         // > 0; the runtime may stop() earlier
  int64_t decode_steps = -1;         // after the first token; -1: output_tokens - 1 (under speculation: fewer)
  std::span<const uint64_t> hashes;  // of the sequence's full KV blocks from its start, as far as known; copied
  int priority = 0;                  // smaller first
  bool prefilled = false;            // the prompt's KV comes from another worker: admitted, it is in Batch::pulls
  bool keeps_kv = false;             // finished, it holds its KV until release(): another worker fetches it
};

// A piece of a prompt in a step.
struct Chunk {
  RequestId id = 0;
  int64_t tokens = 0, context = 0;  // computed in this step; in the cache before it
  bool last = false;                // the step makes the request's next token
};

// One step. Spans are valid until the scheduler's next change.
struct Batch {
  std::span<const Chunk> prompts;
  std::span<const RequestId> decodes;       // one step of decode each
  int64_t lingering = 0;                    // of the decodes, those that have finished already: they make no token
  double decode_context = 0;                // KV tokens of the decodes before the step, in all
  std::span<const RequestId> pulls;         // admitted now; call arrived() when their KV is here
  int64_t swapped_in = 0, swapped_out = 0;  // KV tokens to move from and to the host before the step
  int64_t repeats = 1;  // times the same batch would come again with nothing from outside, this one included

  bool empty() const { return prompts.empty() && decodes.empty(); }
};

// What a step (or several) changed.
struct Progress {
  std::span<const RequestId> first;     // have their first token
  std::span<const RequestId> finished;  // have their last one; gone, unless they keep their KV
};

struct Counters {
  int64_t preemptions = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0;  // of admitted prompts, in all and of these found in the cache
  int64_t computed_tokens = 0;                   // of prompts, recomputed ones included
};

// One engine instance's (one attention-DP rank's) scheduler. Use: add() any time; next_batch(); run it; complete().
class Scheduler {
 public:
  // `block_tokens` is a power of two; `kv_blocks` > 0.
  Scheduler(const Policy& policy, int64_t kv_blocks, int64_t block_tokens);

  // Whether the request could run if it were alone.
  bool can_run(const Request& request) const;
  RequestId add(const Request& request);  // can_run() must hold

  // The next step's batch; empty when nothing can run. `most_repeats` > 1 asks how often it would come again.
  const Batch& next_batch(int64_t most_repeats = 1);
  // The batch ran `steps` <= repeats times.
  const Progress& complete(int64_t steps = 1);

  // Under Policy::counts_tokens: what a decoding request's part in the running step made, 1 to Policy::decode_tokens.
  void won(RequestId id, int64_t tokens);
  // Hashes of the request's next full blocks, after those that are known: of its answer as it comes.
  void extend_hashes(RequestId id, std::span<const uint64_t> more);

  void arrived(RequestId id);  // the KV of a pull is here
  void release(RequestId id);  // a finished request's KV was fetched
  void stop(RequestId id);     // leaves, wherever it is; one that is in the running step leaves at its end

  // Nobody waiting could join before the batch changes: an add() by arrival order can't either. Where results are
  // delayed an add() counts steps, so that it must know in which it came.
  bool blocked() const { return blocked_ && policy_.result_delay == 0; }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t running() const { return static_cast<int64_t>(running_.size() + pulling_.size()); }
  int64_t waiting_tokens() const { return waiting_tokens_; }  // of prompts not admitted
  int64_t free_blocks() const { return kv_.available(); }
  int64_t total_blocks() const { return kv_.total(); }
  int64_t block_tokens() const { return int64_t{1} << shift_; }
  // Prompt tokens that the prefix cache would save a request with these hashes.
  int64_t cached_prefix_tokens(std::span<const uint64_t> hashes, int64_t prompt_tokens) const;
  int64_t generated(RequestId id) const;  // tokens so far
  std::span<const BlockId> blocks(RequestId id) const { return slots_[static_cast<size_t>(id)].blocks; }
  const Counters& counters() const { return counters_; }
  const Policy& policy() const { return policy_; }
  // Throws std::logic_error when blocks and requests don't add up. For tests; O(blocks).
  void check() const;

 private:
  enum class Phase : uint8_t { none, waiting, pulling, running, finished };
  struct Slot {  // what is seldom looked at
    Request request;
    std::vector<uint64_t> hashes;
    std::vector<BlockId> blocks;
    int64_t sequence = 0;  // order of arrival
    int64_t eligible = 0;  // step from which it may be admitted
    int64_t left = 0;      // decode steps, while it is not running
    int64_t target = 0;    // tokens to compute before it decodes
    size_t published = 0;  // blocks that have their hash
    int64_t swapped = 0;   // KV tokens kept on the host
    int64_t won = 1;       // tokens of the running step, where they are counted
    bool started = false;  // has its first token
    bool stopping = false;
    Phase phase = Phase::none;
  };
  struct Running {
    RequestId id;
    int32_t lingers;  // > 0: finished, and still in the batch for so many steps
    double done;      // tokens in the KV cache
    int64_t target;   // decodes once done >= target
    int64_t left;     // decode steps to take
    int64_t room;     // tokens that its blocks hold
    int64_t chunk;    // prompt tokens in the current batch
    bool scheduled;   // in the current batch
    bool decodes() const { return done >= static_cast<double>(target); }
  };

  int64_t blocks_of(double tokens) const;
  Slot& slot(RequestId id) { return slots_[static_cast<size_t>(id)]; }
  bool before(RequestId a, RequestId b) const;
  void enqueue(RequestId id);
  bool grow(Running& r, double tokens);
  bool grow_or_preempt(size_t index, double tokens);
  void preempt_last();
  void schedule(bool prompts, bool decodes);
  void schedule_one(size_t index, int64_t tokens);
  void admit();
  bool admit_head();
  int64_t chunk_of(int64_t fresh) const;
  int64_t own_reserve(const Slot& s) const;
  bool has_room(const Slot& s, int64_t cached, int64_t held_now, const KvBlocks::Match& match) const;
  int64_t reserved_blocks() const;
  int64_t reserve_of(double tokens, int64_t left, int64_t room) const;
  int64_t eligible_in() const;
  size_t join(RequestId id, double done);
  int64_t repeats(int64_t most) const;
  bool fits_for(int64_t steps) const;
  void grow_all(int64_t steps);
  void publish(Slot& s, double done);
  bool advance(Running& r, int64_t steps);
  bool finish(Running& r);
  void leave(RequestId id);

  Policy policy_;
  KvBlocks kv_;
  int shift_;
  int64_t watermark_blocks_;
  double growth_, room_growth_;  // KV tokens a step of decode adds, and has room for
  int64_t spare_tokens_;         // of KV beyond a request's last token: drafts that turn out wrong
  std::vector<Slot> slots_;
  std::vector<RequestId> unused_;
  std::deque<RequestId> waiting_;
  std::vector<Running> running_;          // in the order they came; by priority first under Order::priority
  std::vector<RequestId> pulling_, new_;  // new: added while a step ran, under delayed results
  int64_t waiting_tokens_ = 0, sequence_ = 0, steps_ = 0;
  int64_t budget_ = 0;  // tokens that the step being filled still takes
  bool blocked_ = false, preempted_ = false, in_flight_ = false;

  Batch batch_;
  std::vector<Chunk> chunks_;
  std::vector<RequestId> decodes_, pulls_, first_, finished_;
  Progress progress_;
  Counters counters_;
};

}  // namespace drydock::scheduler
