#pragma once
// What a Dispatcher keeps; shared by the files that implement it.
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <queue>
#include <thread>
#include <unordered_map>

#include "runtime/block_hasher.h"
#include "runtime/dispatcher.h"
#include "runtime/prefix_index.h"

namespace drydock::runtime {

// A generation in flight.
struct Live {
  Service::Id id = 0;
  Generation generation;
  std::shared_ptr<Listener> listener;
  Clock::time_point since;
  std::vector<Token> answer;  // that the client has
  std::optional<GeneratedToken>
      first;                    // made by a prefill worker; the client has it when the KV is at the decode worker
  std::vector<uint64_t> names;  // of the prompt's blocks, for kv_aware routing
  int pool = -1, worker = -1;   // -1: none yet
  Attempt attempt = 0;
  int64_t prompt = 0;  // as the router counts it: after a migration with what was generated
  int64_t cached = 0;  // of it, what its worker need not compute, as the router was told
  bool local = false;  // prefill and decode on one worker
  bool routed = false, prefilled = false, homeless = false, told_first = false;
  int source_worker = -1;  // who holds its KV
  Attempt source_attempt = 0;
  int migrations = 0;
  std::deque<News> pending;  // that are not due yet, in order
  Clock::time_point due{};
};

// Counts of the lives before and of the present one, which tells the state.
Pulse summed(const Pulse& before, const Pulse& now);

// A worker's place in a pool.
struct Place {
  std::shared_ptr<WorkerLink> link;  // null: dead
  Dispatcher::Life life = 0;
  int64_t lives = 0;
  Hello hello;
  Pulse before;  // counts of lives that are over
  PrefixIndex index;
};

struct PlacePool {
  PlacePool(const DispatcherSpec::Pool& spec, const scheduler::RouterConfig& config)
      : stage(spec.stage), router(config, spec.replicas), places(static_cast<size_t>(spec.replicas)) {
    for (int i = 0; i < spec.replicas; ++i) router.set_alive(i, false);
  }
  Stage stage;
  scheduler::Router router;
  std::vector<Place> places;
};

struct Dispatcher::Impl {
  explicit Impl(DispatcherSpec given);
  ~Impl();

  void post(std::function<void()> task);
  void run();
  void deliver();
  Clock::time_point next_time() const;
  void on_time(Clock::time_point now);
  double now_us() const { return std::chrono::duration<double, std::micro>(Clock::now() - began).count(); }

  // On the dispatcher's thread, with state_mutex.
  void arrive(Id id, Generation generation, std::shared_ptr<Listener> listener, Clock::time_point since);
  void dispatch(Live& l);
  int choose(PlacePool& pool, const Live& l);
  int64_t cached_on(const PlacePool& pool, const Live& l) const;
  void send(Live& l, int pool);
  Start start_of(const Live& l) const;
  void house();
  void unroute(Live& l);
  void give_back_source(Live& l);
  void leave_worker(Live& l);
  void end(Id id, Finish finish, const std::string& reason);
  void take_news(int pool, int worker, std::vector<News>& news);
  void take(Live& l, News& news);
  void apply(Live& l, News& news);
  void prefilled(Live& l, News& news);
  void kv_here(Live& l);
  void first_token(Live& l);
  void tell(Live& l, std::vector<GeneratedToken> tokens);
  void join(const Hello& hello, std::shared_ptr<WorkerLink> link, Life life, int pool, int worker);
  void lose(Life life, const std::string& reason);
  void move_elsewhere(Live& l, const std::string& reason);
  void look_at_workers();
  Live* find(Attempt attempt);
  Place& place(int pool, int worker) { return pools[static_cast<size_t>(pool)].places[static_cast<size_t>(worker)]; }

  DispatcherSpec spec;
  const Clock::time_point began = Clock::now();

  mutable std::mutex inbox_mutex;
  std::condition_variable wake;
  std::vector<std::function<void()>> inbox, taken;
  bool stopping = false;

  std::atomic<int64_t> waiting{0};  // accepted, without a first token
  std::atomic<uint64_t> next_id{1}, next_life{1};
  std::atomic<bool> draining{false};
  std::atomic<bool> delivering{false};  // listeners are being told what state_mutex's tasks came to
  std::atomic<int64_t> refused{0};

  mutable std::mutex state_mutex;
  std::condition_variable emptied;  // of state_mutex
  std::vector<PlacePool> pools;
  std::map<Id, std::unique_ptr<Live>> lives;  // in order of arrival
  std::unordered_map<Attempt, Live*> attempts;
  std::deque<Id> homeless;
  std::multimap<Clock::time_point, Id> deadlines, held;
  std::unordered_map<Life, std::pair<int, int>> where;  // a life's pool and worker
  Attempt next_attempt = 1;
  Clock::time_point next_look{};
  ServiceStats counts;
  double first_token_s = 0;             // smoothed time to the first token
  std::unique_ptr<BlockHasher> hasher;  // where routing looks at prefixes
  std::vector<int64_t> overlaps;

  // Told once state_mutex is free: a listener may call back.
  struct Delivery {
    std::shared_ptr<Listener> listener;
    std::vector<GeneratedToken> tokens;
    std::optional<Finish> finish;
    std::string reason;
  };
  std::vector<Delivery> deliveries;
  std::thread thread;
};

}  // namespace drydock::runtime
