#pragma once
// Which requests run in an engine's next step: continuous batching, prompt chunks, KV admission and preemption. Pure
// logic, driven by predicted times in the simulator and by real ones in the runtime.
#include <cstdint>
#include <deque>
#include <optional>
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
  // A prompt that could start beside decode waits until it has done so for wait_steps steps, or until prompts and
  // decode of the step would take wait_share of max_tokens. TensorRT-LLM's batch_wait_timeout_iters and
  // batch_wait_max_tokens_ratio: tensorrt_llm/_torch/pyexecutor/py_executor.py, _waiting_requests().
  int64_t wait_steps = 0;
  double wait_share = 1;
  // New requests are looked at after so many steps of decode, after every step with prompts, and when idle. SGLang's
  // scheduler_recv_interval: python/sglang/srt/managers/scheduler_recv_skipper.py.
  int64_t poll_steps = 1;
  // For who steps several attention-DP ranks together: a prompt starts when every rank has one that could, then after
  // balance_wait more such steps, or else in every balance_steps-th step; 0: at once. TensorRT-LLM's
  // attention_dp_config (enable_balance, timeout_iters, batching_wait_iters): py_executor.py, _balance_adp_requests().
  int64_t balance_steps = 0, balance_wait = 0;
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

  // The next step's batch; empty when nothing can run. `most_repeats` > 1 asks how often it would come again. Without
  // `admits` no waiting request joins it, and repeats knows of no end to that.
  const Batch& next_batch(int64_t most_repeats = 1, bool admits = true);
  // Of the next step, before next_batch(): whether a waiting request could join it, and whether requests decode in it.
  bool could_admit() const;
  bool decodes() const;
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
  int64_t free_blocks() const { return kv_.available() - owed_blocks(); }
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
  // Those that decode move in step, so that a step changes one clock instead of each: what they have and when they end
  // are kept relative to it.
  struct Running {
    RequestId id;
    int32_t lingers;  // > 0: finished, and still in the batch for so many steps
    double done;      // tokens in the KV cache; while it decodes, less those of clock_ steps
    int64_t target;   // decodes once so many are done
    int64_t left;     // decode steps to take; while it decodes, clock_ at its end
    int64_t room;     // tokens that its blocks hold
    int64_t chunk;    // prompt tokens in the current batch; -1: joined while it ran
    bool decoding;
    bool scheduled;  // in the current batch, unless all_scheduled_
    bool in_decode() const { return decoding || lingers > 0; }
  };

  // How a waiting request would join the step being filled.
  struct Entry {
    KvBlocks::Match match;
    int64_t cached = 0, chunk = 0, held_now = 0;  // tokens: found in the cache, to compute, of KV to hold
    bool whole = false;                           // its KV comes from the host or from another worker
  };

  int64_t blocks_of(double tokens) const;
  const Slot& slot(RequestId id) const { return slots_[static_cast<size_t>(id)]; }
  Slot& slot(RequestId id) { return slots_[static_cast<size_t>(id)]; }
  double done_of(const Running& r) const {
    return r.decoding ? r.done + growth_ * static_cast<double>(clock_) : r.done;
  }
  int64_t left_of(const Running& r) const { return r.decoding ? r.left - clock_ : r.left; }
  bool takes_part(const Running& r) const { return all_scheduled_ ? r.chunk >= 0 : r.scheduled; }
  bool before(RequestId a, RequestId b) const;
  void enqueue(RequestId id);

  // KV blocks of those that run: scheduler_room.cpp
  bool grow(Running& r, double tokens);
  bool grow_or_preempt(size_t index, double tokens);
  void grow_all(int64_t steps);
  void grow_rooms();
  void preempt_last();
  int64_t owed_blocks() const;
  int64_t owed_most(int64_t steps) const;
  bool fits_for(int64_t steps) const;

  void begin_count();
  void count(const Running& r);
  bool takes_all();
  void schedule(bool prompts, bool decodes);
  void schedule_one(size_t index, int64_t tokens, bool has_room = false);
  void schedule_each();
  void admit();
  bool admit_head();
  std::optional<Entry> entry_of(RequestId id, int64_t budget, bool alone, int64_t owed) const;
  std::optional<Entry> entry_now(RequestId id);
  bool may_come(const Slot& s) const { return s.eligible <= steps_ && s.sequence < seen_; }
  void poll(bool after_prompts);
  bool waits_for_more();
  int64_t chunk_of(int64_t fresh, int64_t budget, bool alone) const;
  int64_t own_reserve(const Slot& s) const;
  bool has_room(const Slot& s, int64_t cached, int64_t held_now, const KvBlocks::Match& match, int64_t owed) const;
  int64_t reserved_blocks() const;
  int64_t reserve_of(double tokens, int64_t left, int64_t room) const;
  int64_t admits_in() const;
  size_t join(RequestId id, double done);
  int64_t repeats(int64_t most) const;
  void publish(Slot& s, double done);
  bool goes_on() const;
  bool decoded(Running& r, int64_t steps);
  bool computed(Running& r);
  bool finish(Running& r);
  void leave(RequestId id);

  Policy policy_;
  KvBlocks kv_;
  int shift_;
  int64_t watermark_blocks_;
  double growth_, room_growth_;  // KV tokens a step of decode adds, and has room for
  int64_t spare_tokens_;         // of KV beyond a request's last token: drafts that turn out wrong
  // Decoding requests get their blocks when it matters: where no block has content and no step differs from another,
  // only their number does, and that is known.
  bool lazy_;
  std::vector<Slot> slots_;
  std::vector<RequestId> unused_;
  std::deque<RequestId> waiting_;
  std::vector<Running> running_;          // in the order they came; by priority first under Order::priority
  std::vector<RequestId> pulling_, new_;  // new: added while a step ran, under delayed results
  int64_t waiting_tokens_ = 0, sequence_ = 0, steps_ = 0;
  int64_t budget_ = 0;             // tokens that the step being filled still takes
  int64_t polled_ = 0, seen_ = 0;  // step of the last look at new requests, and the first `sequence` after it
  int64_t waits_from_ = -1;        // step since which prompts wait for more of them; -1: none do
  bool blocked_ = false, preempted_ = false, in_flight_ = false, admits_ = true;

  int64_t clock_ = 0;           // steps of decode
  int64_t synced_ = 0;          // clock_ when all that decode had blocks for what they had done
  bool all_scheduled_ = false;  // all of everyone_ are in the batch
  bool joined_late_ = false;    // a request joined while the batch ran
  int64_t stopping_ = 0;        // requests that leave with the step under way
  // Of running_; changed_: to be counted anew.
  bool changed_ = true;
  std::vector<RequestId> everyone_;                       // in decode, in the order of running_
  int64_t decoders_ = 0, lingering_ = 0, prompting_ = 0;  // of running_
  int64_t next_end_ = 0;                                  // of the decoders, on clock_
  double context_ = 0, lingering_context_ = 0;            // of decoders less clock_; of those that linger

  Batch batch_;
  std::vector<Chunk> chunks_;
  std::vector<RequestId> decodes_, pulls_, first_, finished_;
  Progress progress_;
  Counters counters_;
};

}  // namespace drydock::scheduler
