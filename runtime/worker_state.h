#pragma once
// What a Worker keeps; shared by the files that implement it.
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "runtime/block_hasher.h"
#include "runtime/kv_receiver.h"
#include "runtime/step_forecast.h"
#include "runtime/worker.h"

namespace drydock::runtime {

// A request on the worker, or one that has finished and lingers in the batch.
struct Sequence {
  Start start;
  std::vector<Token> tokens;  // prompt and answer
  int64_t answered = 0, left = 0;
  int rank = 0;
  scheduler::RequestId id = -1;
  BlockHasher::Chain chain;
  int64_t cached = -1;     // prompt tokens found in the cache; -1: not begun
  std::vector<Token> fed;  // to the step under way: the last token and drafts
  int64_t unknown = 0;     // draws that are under way, in steps that were launched and not waited for
  int64_t output = -1;     // the last of these, among its step's outputs
  bool ended = false;      // for its scheduler, by its number of tokens; if it keeps KV, until release()
  bool finished = false;   // for the worker

  std::span<const Token> drafts() const { return std::span(fed).subspan(1); }
};

// An output of a step: whose, and how many tokens.
struct Drawn {
  std::shared_ptr<Sequence> sequence;
  int64_t count, won;  // drawn, and of these what is right
  bool of_prompt;
};

// A step from its batch to its results.
struct Flight {
  std::vector<Drawn> drawn;
  int64_t sequences = 0;
  bool prompts = false;
};

// KV that a prefill stage holds for another worker.
struct HeldKv {
  int rank = 0;
  scheduler::RequestId id = -1;
  std::vector<int32_t> blocks;
  int64_t tokens = 0;
};

// The link of a worker, on which predicted transfers take turns.
class KvLink {
 public:
  double free_in_us() const;
  // Takes `wire_us` once this link and one that is free in `other_us` are; until then, from now.
  double take(double wire_us, double other_us);
  void taken(double us);  // until then, from now

 private:
  mutable std::mutex mutex_;
  Clock::time_point free_{};
};

struct Worker::Impl {
  Impl(WorkerSpec spec, std::unique_ptr<Engine> engine, WorkerSink& sink, KvConnect connect);
  ~Impl();

  // From any thread.
  void post(std::function<void()> task);
  void fetch(const KvFetch& fetch, std::function<void(KvPiece)> answer);

  // On the worker's thread.
  void run();
  void run_taken();
  bool wait_for_tasks(bool idle);
  bool step();
  bool whole_step();
  bool overlapped_step();
  bool launch_step();
  bool foreseen() const;
  void run_tasks_until(Clock::time_point when);
  void land_step();
  bool form(Flight& flight);
  void complete_step();
  void submit(Start start);
  int choose_rank();
  void cancel(Attempt attempt);
  void release(Attempt attempt);
  void forget_all();
  void fill(int rank, const scheduler::Batch& batch, Flight& flight);
  void feed(int rank, const scheduler::Batch& batch);
  void fetch_kv(Sequence& s);
  void kv_done(Attempt attempt, bool came, const std::string& reason);  // on the receiver's thread
  bool write_kv(Attempt attempt, int64_t first_block, std::span<const std::byte> bytes);
  KvPiece read_piece(const KvFetch& fetch);
  void count_won(Flight& flight);
  void take_results(const Flight& flight);
  void take(Sequence& s, std::span<GeneratedToken> drawn, bool of_prompt);
  void hold(Sequence& s);
  void drop(Sequence& s);
  Sequence* find(Attempt attempt);
  void tell(News news) { news_.push_back(std::move(news)); }
  void flush();
  void publish();
  void check() const;

  WorkerSpec spec;
  std::unique_ptr<Engine> engine;
  WorkerSink& sink;
  bool counts_bytes;  // the engine has KV of its own
  bool overlaps;      // steps are formed while the one before is computed

  std::vector<scheduler::Scheduler> ranks;
  std::vector<std::vector<std::shared_ptr<Sequence>>> owners;  // [rank][id of its scheduler]
  std::unordered_map<Attempt, Sequence*> sequences;            // those that are not finished
  std::vector<RankWork> work;
  std::vector<char> active;
  std::array<Flight, 2> flights;  // `under_way` of them from `oldest` on; without overlap the first is used
  size_t oldest = 0, under_way = 0;
  Clock::time_point step_began;  // of the oldest
  StepForecast forecast;
  double forming_us = 0;  // the longest of late, from forming a batch to having launched it
  std::vector<DraftQuestion> questions;
  StepResult result;
  std::vector<News> news_;
  BlockHasher hasher;
  std::vector<uint64_t> names;
  std::vector<int64_t> rank_sequences, rank_tokens;
  Pulse counts;

  KvLink link;
  mutable std::mutex held_mutex;
  std::unordered_map<Attempt, HeldKv> held;

  mutable std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::function<void()>> tasks, taken;
  size_t next_taken = 0;  // of `taken`, on the worker's thread
  bool stopping = false, dead = false;
  std::mutex dead_mutex;  // taken by those who run tasks in the dead thread's place
  Pulse shown;            // under mutex
  std::atomic<int64_t> step_began_ns{0};

  std::unique_ptr<KvReceiver> receiver;  // decode stages
  std::thread thread;
};

}  // namespace drydock::runtime
