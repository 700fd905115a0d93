#pragma once
// An engine that takes steps while others are computed, and workers with it.
#include <deque>

#include "core/random.h"
#include "tests/runtime_bed.h"
#include "tests/runtime_memory_engine.h"

namespace drydock::runtime {

// What a SequenceWork refers to, kept: all of it may change once a launch has returned.
struct KeptWork {
  explicit KeptWork(const SequenceWork& w)
      : tokens(w.tokens.begin(), w.tokens.end()), blocks(w.blocks.begin(), w.blocks.end()), work(w) {
    if (w.sampling != nullptr) sampling = *w.sampling;
  }
  SequenceWork view() const {
    SequenceWork out = work;
    out.tokens = tokens, out.blocks = blocks, out.sampling = &sampling;
    return out;
  }
  std::vector<Token> tokens;
  std::vector<int32_t> blocks;
  Sampling sampling;
  SequenceWork work;
};

// What happened, for a test to look at.
struct EngineLog {
  std::atomic<int> steps{0}, followed{0}, most_under_way{0};
};

// A MemoryEngine whose launched steps are computed by a thread of its own, `step_us` each.
class LaunchingEngine : public MemoryEngine {
 public:
  struct Times {
    int64_t step_us = 0, launch_us = 0;
  };
  LaunchingEngine(int64_t blocks, int64_t block_tokens, Times times, std::shared_ptr<EngineLog> log)
      : MemoryEngine(blocks, block_tokens), times_(times), log_(std::move(log)), thread_([this] { run(); }) {}
  ~LaunchingEngine() override {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void step(std::span<const RankWork> ranks, StepResult& result) override {
    launch(ranks);
    wait(result);
  }
  bool overlaps() const override { return true; }
  void launch(std::span<const RankWork> ranks) override {
    if (times_.launch_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(times_.launch_us));
    std::vector<KeptWork> kept;
    for (const auto* some : {&ranks[0].prompts, &ranks[0].decodes})
      for (const SequenceWork& w : *some) kept.emplace_back(w);
    const std::scoped_lock lock(mutex_);
    jobs_.push_back(std::move(kept));
    const auto under_way = static_cast<int>(++launched_ - waited_);
    log_->most_under_way = std::max<int>(log_->most_under_way, under_way);
    if (under_way > 2) throw core::Error("more than two steps under way");
    changed_.notify_all();
  }
  void wait(StepResult& result) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !results_.empty(); });
    result = std::move(results_.front());
    results_.pop_front();
    ++waited_;
  }
  void read_kv(int rank, std::span<const int32_t> blocks, std::span<std::byte> out) override {
    idle_then([&] { MemoryEngine::read_kv(rank, blocks, out); });
  }
  void write_kv(int rank, std::span<const int32_t> blocks, std::span<const std::byte> in) override {
    idle_then([&] { MemoryEngine::write_kv(rank, blocks, in); });
  }

 private:
  template <typename Then>
  void idle_then(Then&& then) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return jobs_.empty() && !computing_; });
    then();
  }

  void run() {
    std::unique_lock lock(mutex_);
    std::vector<Token> before;
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) return;
      std::vector<KeptWork> job = std::move(jobs_.front());
      jobs_.pop_front();
      computing_ = true;
      lock.unlock();
      StepResult result = compute(job, before);
      lock.lock();
      results_.push_back(std::move(result));
      computing_ = false;
      changed_.notify_all();
    }
  }

  StepResult compute(std::vector<KeptWork>& job, std::vector<Token>& before) {
    const auto begin = Clock::now();
    RankWork work;
    for (KeptWork& w : job) {
      if (w.work.follows >= 0) {
        w.tokens.front() = before.at(static_cast<size_t>(w.work.follows));
        ++log_->followed;
      }
      work.decodes.push_back(w.view());
    }
    StepResult result;
    MemoryEngine::step({&work, 1}, result);
    before.clear();
    for (const GeneratedToken& t : result.tokens) before.push_back(t.token);
    if (times_.step_us > 0) sleep_until(begin + std::chrono::microseconds(times_.step_us));
    result.us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
    ++log_->steps;
    return result;
  }

  Times times_;
  std::shared_ptr<EngineLog> log_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<KeptWork>> jobs_;
  std::deque<StepResult> results_;
  uint64_t launched_ = 0, waited_ = 0;
  bool computing_ = false, stopping_ = false;
  std::thread thread_;
};

struct OverlapOptions {
  bool overlap = true, prefix_cache = false, apart = false;
  int64_t kv_blocks = 400;
  LaunchingEngine::Times times{300, 0};
  DraftFunction drafts;
};

class OverlapBed {
 public:
  explicit OverlapBed(const OverlapOptions& o) : dispatcher(spec_of(o)) {
    std::vector<LocalWorker> workers;
    for (const auto& pool : spec_of(o).pools) {
      WorkerSpec w;
      w.name = worker_name(pool.stage, 0);
      w.stage = pool.stage;
      w.policy = scheduler::vllm(128, 16);
      w.policy.prefix_cache = o.prefix_cache;
      if (o.drafts) w.policy.decode_tokens = 4;
      w.kv_blocks = o.kv_blocks, w.block_tokens = 16;
      w.overlap = o.overlap;
      w.drafts = o.drafts;
      workers.push_back(
          {w, [o, log = log] { return std::make_unique<LaunchingEngine>(o.kv_blocks, 16, o.times, log); }});
    }
    fleet = std::make_unique<LocalFleet>(dispatcher, std::move(workers), std::chrono::milliseconds(5));
    for (int i = 0; i < 2000 && !dispatcher.ready(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  static DispatcherSpec spec_of(const OverlapOptions& o) {
    DispatcherSpec spec;
    if (o.apart) spec.pools = {{Stage::prefill, 1}, {Stage::decode, 1}};
    spec.router.block_tokens = 16;
    spec.longest_sequence = (o.kv_blocks - 1) * 16;
    return spec;
  }
  std::shared_ptr<Reader> ask(std::vector<Token> prompt, int64_t tokens, uint64_t seed, std::vector<Token> stops = {},
                              Service::Id* id = nullptr) {
    Generation g;
    g.prompt = std::move(prompt);
    g.most_tokens = tokens;
    g.sampling.seed = seed;
    g.stop_tokens = std::move(stops);
    auto reader = std::make_shared<Reader>();
    Service::Id given = 0;
    REQUIRE(dispatcher.submit(std::move(g), reader, given) == Admission::accepted);
    if (id) *id = given;
    return reader;
  }
  void check_empty() {
    for (int tried = 0;; ++tried) try {
        return fleet->check();
      } catch (const std::logic_error& error) {
        if (tried == 200) FAIL(error.what());
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
  }

  std::shared_ptr<EngineLog> log = std::make_shared<EngineLog>();
  Dispatcher dispatcher;
  std::unique_ptr<LocalFleet> fleet;
};

inline std::vector<Token> overlap_prompt(uint64_t seed, int64_t length) {
  std::vector<Token> out;
  for (int64_t i = 0; i < length; ++i)
    out.push_back(static_cast<Token>(core::mix(seed * 1000 + static_cast<uint64_t>(i)) % 1000));
  return out;
}

}  // namespace drydock::runtime
