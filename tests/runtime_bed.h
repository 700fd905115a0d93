#pragma once
// Deployments of emulated engines with made-up prices, and clients that check every token.
#include <doctest/doctest.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "core/error.h"
#include "runtime/dispatcher.h"
#include "runtime/emulated_engine.h"
#include "runtime/local_fleet.h"
#include "tests/simulator_bed.h"

namespace drydock::runtime {

// What a client got.
class Reader : public Listener {
 public:
  explicit Reader(Clock::time_point sent = Clock::now()) : sent_(sent) {}

  void on_tokens(std::span<const GeneratedToken> tokens) override {
    const std::scoped_lock lock(mutex_);
    CHECK_FALSE(finish_.has_value());
    const Clock::time_point now = Clock::now();
    if (tokens_.empty()) first_ = now;
    last_ = now;
    for (const GeneratedToken& t : tokens) tokens_.push_back(t.token);
    came_.notify_all();
  }
  void on_finish(Finish finish, const std::string& reason) override {
    const std::scoped_lock lock(mutex_);
    CHECK_FALSE(finish_.has_value());
    finish_ = finish;
    reason_ = reason;
    came_.notify_all();
    if (then) then();
  }

  bool wait(double seconds = 20) {
    std::unique_lock lock(mutex_);
    return came_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return finish_.has_value(); });
  }
  bool wait_tokens(size_t count, double seconds = 20) {
    std::unique_lock lock(mutex_);
    return came_.wait_for(lock, std::chrono::duration<double>(seconds),
                          [&] { return finish_.has_value() || tokens_.size() >= count; });
  }
  // Whether the tokens are those of the seed, from the first one on, none left out or twice.
  bool exact(uint64_t seed) const {
    const std::scoped_lock lock(mutex_);
    for (size_t i = 0; i < tokens_.size(); ++i)
      if (tokens_[i] != emulated_token(seed, static_cast<int64_t>(i))) return false;
    return true;
  }
  std::vector<Token> tokens() const {
    const std::scoped_lock lock(mutex_);
    return tokens_;
  }
  std::optional<Finish> finish() const {
    const std::scoped_lock lock(mutex_);
    return finish_;
  }
  std::string reason() const {
    const std::scoped_lock lock(mutex_);
    return reason_;
  }
  double ttft_ms() const { return std::chrono::duration<double, std::milli>(first_ - sent_).count(); }
  double tpot_ms() const {
    const auto gaps = static_cast<double>(std::max<size_t>(2, tokens_.size()) - 1);
    return std::chrono::duration<double, std::milli>(last_ - first_).count() / gaps;
  }
  std::function<void()> then;

 private:
  mutable std::mutex mutex_;
  std::condition_variable came_;
  std::vector<Token> tokens_;
  std::optional<Finish> finish_;
  std::string reason_;
  Clock::time_point sent_, first_, last_;
};

// Wraps an engine so that a test can make it fail.
class FragileEngine : public Engine {
 public:
  FragileEngine(std::unique_ptr<Engine> engine, std::shared_ptr<std::atomic<int>> failures)
      : engine_(std::move(engine)), failures_(std::move(failures)) {}
  int ranks() const override { return engine_->ranks(); }
  int64_t vocabulary() const override { return engine_->vocabulary(); }
  void step(std::span<const RankWork> ranks, StepResult& result) override {
    engine_->step(ranks, result);
    int left = *failures_;
    while (left > 0 && !failures_->compare_exchange_weak(left, left - 1)) continue;
    if (left > 0) throw core::Error("the device is gone");
  }
  void idle() override { engine_->idle(); }
  size_t kv_block_bytes() const override { return engine_->kv_block_bytes(); }
  void read_kv(int rank, std::span<const int32_t> blocks, std::span<std::byte> out) override {
    engine_->read_kv(rank, blocks, out);
  }
  void write_kv(int rank, std::span<const int32_t> blocks, std::span<const std::byte> in) override {
    engine_->write_kv(rank, blocks, in);
  }

 private:
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<std::atomic<int>> failures_;  // steps that are still to fail
};

struct BedOptions {
  std::vector<DispatcherSpec::Pool> pools = {{Stage::whole, 1}};
  scheduler::Policy policy = scheduler::vllm(2048, 64);
  int64_t kv_blocks = 4000, block_tokens = 16;
  int ranks = 1;
  double time_scale = 0;
  simulator::TransferSpec transfer;
  simulator::KinkedPrice price;
  int64_t local_prefill_tokens = 0, most_waiting = 4096;
  scheduler::RouterPolicy router = scheduler::RouterPolicy::least_outstanding_tokens;
  std::function<std::vector<Token>(const DraftQuestion&)> drafts;
};

// A dispatcher and its workers in this process.
class Bed {
 public:
  explicit Bed(const BedOptions& o) : dispatcher(dispatcher_spec(o)) {
    std::vector<LocalWorker> workers;
    for (const auto& pool : o.pools)
      for (int i = 0; i < pool.replicas; ++i) workers.push_back(worker_of(o, pool.stage, i));
    fleet = std::make_unique<LocalFleet>(dispatcher, std::move(workers), std::chrono::milliseconds(5));
    wait_ready();
  }
  ~Bed() { fleet.reset(); }

  void wait_ready() {
    for (int i = 0; i < 1000 && !dispatcher.ready(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    REQUIRE(dispatcher.ready());
  }

  std::shared_ptr<Reader> ask(int64_t prompt, int64_t output, uint64_t seed, Service::Id* id = nullptr) {
    Generation g;
    g.id = "cmpl-" + std::to_string(seed);
    for (int64_t i = 0; i < prompt; ++i)
      g.prompt.push_back(static_cast<Token>((seed * 31 + static_cast<uint64_t>(i) * 7) % 250));
    g.most_tokens = output;
    g.sampling.seed = seed;
    auto reader = std::make_shared<Reader>();
    Service::Id given = 0;
    REQUIRE(dispatcher.submit(std::move(g), reader, given) == Admission::accepted);
    if (id) *id = given;
    return reader;
  }

  // Nothing runs any more: no block is held. Releases may still be on their way.
  void check_empty() {
    for (int tried = 0;; ++tried) try {
        fleet->check();
        return;
      } catch (const std::logic_error& error) {
        if (tried == 100) FAIL(error.what());
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
  }

  static DispatcherSpec dispatcher_spec(const BedOptions& o) {
    DispatcherSpec spec;
    spec.pools = o.pools;
    spec.router.policy = o.router;
    spec.router.block_tokens = o.block_tokens;
    spec.local_prefill_tokens = o.local_prefill_tokens;
    spec.most_waiting = o.most_waiting;
    spec.inhibit_us = 20'000;
    spec.longest_sequence = (o.kv_blocks - 1) * o.block_tokens;
    return spec;
  }

  LocalWorker worker_of(const BedOptions& o, Stage stage, int index) {
    LocalWorker out;
    out.spec.name = worker_name(stage, index);
    out.spec.stage = stage;
    out.spec.policy = o.policy;
    out.spec.policy.prefix_cache = o.policy.prefix_cache && stage != Stage::decode;
    out.spec.kv_blocks = o.kv_blocks;
    out.spec.block_tokens = o.block_tokens;
    out.spec.transfer = o.transfer;
    if (o.drafts) out.spec.drafts = one_by_one(o.drafts);
    auto& failing = failures[out.spec.name] = std::make_shared<std::atomic<int>>(0);
    prices.push_back(std::make_unique<simulator::KinkedPrice>(o.price));
    out.engine = [price = prices.back().get(), o, failing = failing]() -> std::unique_ptr<Engine> {
      auto engine = std::make_unique<EmulatedEngine>(*price, EmulatedOptions{o.ranks, o.time_scale, true});
      return std::make_unique<FragileEngine>(std::move(engine), failing);
    };
    return out;
  }

  std::map<std::string, std::shared_ptr<std::atomic<int>>> failures;  // by worker: steps that are to fail
  std::vector<std::unique_ptr<simulator::KinkedPrice>> prices;
  Dispatcher dispatcher;
  std::unique_ptr<LocalFleet> fleet;
};

}  // namespace drydock::runtime
