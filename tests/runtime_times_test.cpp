// What dispatcher and workers do, held against the simulator: the same requests, the same times.
#include <algorithm>
#include <array>
#include <string>

#include "simulator/metrics.h"
#include "tests/effort.h"
#include "tests/runtime_bed.h"

using namespace drydock;
using namespace drydock::runtime;

namespace {

struct Times {
  std::vector<double> ttft, tpot;
};

Times simulated(const BedOptions& o, const std::vector<simulator::Arrival>& arrivals) {
  simulator::KinkedPrice price = o.price;
  simulator::ClusterSpec spec;
  for (const auto& pool : o.pools) {
    spec.pools.push_back(simulator::pool_of(pool.stage, o.policy, price, pool.replicas, o.kv_blocks, o.ranks));
    spec.pools.back().block_tokens = o.block_tokens;
  }
  spec.transfer = o.transfer;
  spec.router = Bed::dispatcher_spec(o).router;
  simulator::Cluster cluster(spec);
  simulator::Recorder::Options keep;
  keep.keep_records = true;
  simulator::Recorder recorder(keep);
  simulator::ListLoad load(arrivals);
  cluster.run(load, recorder);
  return {recorder.ttft_ms(), recorder.tpot_ms()};
}

// As `scale` times slower: what threads wake up late by then matters so much less.
Times served(BedOptions o, const std::vector<simulator::Arrival>& arrivals, double scale) {
  o.time_scale = scale;
  for (double* us : {&o.transfer.fixed_us, &o.transfer.us_per_token, &o.transfer.us_per_block}) *us *= scale;
  Bed bed(o);
  std::vector<std::shared_ptr<Reader>> readers;
  const Clock::time_point begin = Clock::now();
  for (uint64_t i = 0; i < arrivals.size(); ++i) {
    sleep_until(begin + std::chrono::nanoseconds(static_cast<int64_t>(arrivals[i].at_us * scale * 1e3)));
    readers.push_back(bed.ask(arrivals[i].prompt_tokens, arrivals[i].output_tokens, i));
  }
  Times out;
  for (const auto& reader : readers) {
    REQUIRE(reader->wait(60));
    out.ttft.push_back(reader->ttft_ms() / scale);
    out.tpot.push_back(reader->tpot_ms() / scale);
  }
  return out;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

// 200 requests in about 2 s, Poisson; lengths vary so that nothing marches in step.
std::vector<simulator::Arrival> two_seconds() {
  core::Random random(7);
  std::vector<simulator::Arrival> out;
  double at = 0;
  for (int i = 0; i < 200; ++i) {
    out.push_back(simulator::ask(at, random.integer(150, 450), random.integer(15, 40)));
    at += random.exponential(10'000);
  }
  return out;
}

// How late a thread is that wants to run every millisecond, from here on.
class Lateness {
 public:
  Lateness() : thread_([this] { watch(); }) {}
  ~Lateness() { stop(); }
  double mean_ms() {
    stop();
    return sum_ms_ / std::max<double>(1, count_);
  }

 private:
  void watch() {
    for (; !ends_; ++count_) {
      const Clock::time_point due = Clock::now() + std::chrono::milliseconds(1);
      sleep_until(due);
      sum_ms_ += std::chrono::duration<double, std::milli>(Clock::now() - due).count();
    }
  }
  void stop() {
    ends_ = true;
    if (thread_.joinable()) thread_.join();
  }
  std::atomic<bool> ends_{false};
  double sum_ms_ = 0, count_ = 0;
  std::thread thread_;
};

BedOptions slow_steps() {
  BedOptions o;
  o.price.base_us = 4000;
  o.price.sequence_us = 60;
  o.price.prompt_us = 12;
  return o;
}

// A worker's time that only its steps move on: requests come when it is theirs, however long the machine takes.
class Timeline {
 public:
  Timeline(Dispatcher& dispatcher, std::vector<simulator::Arrival> arrivals)
      : dispatcher_(dispatcher), arrivals_(std::move(arrivals)) {}

  // A step has ended. Who came in it is at the worker when this returns. Gives the token that stands for a moment.
  void step(double us, const std::function<void()>& draw) {
    const std::scoped_lock lock(mutex_);
    now_us_ += us;
    draw();
    hand_over();
  }
  Token stamp(double after_us) {
    stamps_us_.push_back(now_us_ + after_us);
    return static_cast<Token>(stamps_us_.size() - 1);
  }
  // Nothing runs: the next one comes.
  void skip() {
    const std::scoped_lock lock(mutex_);
    if (readers_.size() == arrivals_.size()) return;
    now_us_ = std::max(now_us_, arrivals_[readers_.size()].at_us);
    hand_over();
  }
  Times times() {
    Times out;
    for (size_t i = 0; i < arrivals_.size(); ++i) {
      std::shared_ptr<Reader> reader;
      while (!(reader = reader_of(i))) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      REQUIRE(reader->wait(60));
      const std::vector<Token> tokens = reader->tokens();
      REQUIRE(tokens.size() == static_cast<size_t>(arrivals_[i].output_tokens));
      const std::scoped_lock lock(mutex_);
      const double first = stamps_us_[static_cast<size_t>(tokens.front())],
                   last = stamps_us_[static_cast<size_t>(tokens.back())];
      out.ttft.push_back((first - arrivals_[i].at_us) * 1e-3);
      out.tpot.push_back((last - first) * 1e-3 / static_cast<double>(tokens.size() - 1));
    }
    return out;
  }

 private:
  std::shared_ptr<Reader> reader_of(size_t i) {
    const std::scoped_lock lock(mutex_);
    return i < readers_.size() ? readers_[i] : nullptr;
  }
  void hand_over() {
    while (readers_.size() < arrivals_.size() && arrivals_[readers_.size()].at_us <= now_us_) {
      const simulator::Arrival& arrival = arrivals_[readers_.size()];
      Generation g;
      g.prompt.assign(static_cast<size_t>(arrival.prompt_tokens), 1);
      g.most_tokens = arrival.output_tokens;
      readers_.push_back(std::make_shared<Reader>());
      Service::Id id = 0;
      CHECK(dispatcher_.submit(std::move(g), readers_.back(), id) == Admission::accepted);
    }
    // Counted with the same lock held under which they were sent on.
    while (dispatcher_.stats().accepted < static_cast<int64_t>(readers_.size())) std::this_thread::yield();
  }

  Dispatcher& dispatcher_;
  std::vector<simulator::Arrival> arrivals_;
  std::mutex mutex_;
  double now_us_ = 0;
  std::vector<std::shared_ptr<Reader>> readers_;
  std::vector<double> stamps_us_;
};

class TimelineEngine : public Engine {
 public:
  TimelineEngine(simulator::KinkedPrice price, int ranks, Timeline& timeline)
      : price_(price), ranks_(ranks), timeline_(timeline) {}
  int ranks() const override { return ranks_; }
  int64_t vocabulary() const override { return INT32_MAX; }
  void step(std::span<const RankWork> ranks, StepResult& result) override {
    std::vector<std::vector<scheduler::Chunk>> chunks(ranks.size());
    std::vector<simulator::StepWork> work(ranks.size());
    for (size_t r = 0; r < ranks.size(); ++r) {
      for (const SequenceWork& w : ranks[r].prompts)
        chunks[r].push_back({0, static_cast<int64_t>(w.tokens.size()), w.context, w.outputs > 0});
      work[r].prompts = chunks[r];
      work[r].decodes = static_cast<double>(ranks[r].decodes.size());
      for (const SequenceWork& w : ranks[r].decodes) work[r].decode_context += static_cast<double>(w.context);
    }
    result = {};
    timeline_.step(price_.step_us(work), [&] {
      for (const RankWork& rank : ranks)
        for (const auto* some : {&rank.prompts, &rank.decodes})
          for (const SequenceWork& w : *some)
            for (int64_t i = 0; i < w.outputs; ++i)
              result.tokens.push_back({timeline_.stamp(some == &rank.prompts ? price_.drain_us(work) : 0), 0, {}});
    });
  }
  void idle() override { timeline_.skip(); }
  size_t kv_block_bytes() const override { return 0; }
  void read_kv(int, std::span<const int32_t>, std::span<std::byte>) override {}
  void write_kv(int, std::span<const int32_t>, std::span<const std::byte>) override {}

 private:
  simulator::KinkedPrice price_;
  int ranks_;
  Timeline& timeline_;
};

// What one worker does in time of its own.
Times served_in_own_time(const BedOptions& o, const std::vector<simulator::Arrival>& arrivals) {
  Dispatcher dispatcher(Bed::dispatcher_spec(o));
  Timeline timeline(dispatcher, arrivals);
  LocalWorker worker;
  worker.spec.name = worker_name(Stage::whole, 0);
  worker.spec.policy = o.policy;
  worker.spec.kv_blocks = o.kv_blocks, worker.spec.block_tokens = o.block_tokens;
  worker.engine = [&] { return std::make_unique<TimelineEngine>(o.price, o.ranks, timeline); };
  std::vector<LocalWorker> workers;
  workers.push_back(std::move(worker));
  LocalFleet fleet(dispatcher, std::move(workers));
  timeline.skip();
  return timeline.times();
}

void check_equal(std::vector<double> got, std::vector<double> want) {
  std::sort(got.begin(), got.end()), std::sort(want.begin(), want.end());
  REQUIRE(got.size() == want.size());
  // Sums of the same steps in another order.
  for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(want[i]).epsilon(1e-9));
}

}  // namespace

TEST_CASE("dispatcher and worker make the simulator's steps: the same times for every request") {
  BedOptions o = slow_steps();
  SUBCASE("one rank") {}
  SUBCASE("pipeline stages") { o.price.drain = 3000; }
  SUBCASE("a full KV cache, which preempts") { o.kv_blocks = 300; }
  SUBCASE("prompts in small chunks") { o.policy = scheduler::vllm(128, 64); }
  SUBCASE("a batch that is soon full") { o.policy = scheduler::sglang(2048, 8); }
  const std::vector<simulator::Arrival> arrivals = two_seconds();
  const Times want = simulated(o, arrivals), got = served_in_own_time(o, arrivals);
  check_equal(got.ttft, want.ttft);
  check_equal(got.tpot, want.tpot);
}

TEST_CASE("with several ranks requests take the simulator's times on average") {
  // A worker gives a request its rank when the step is over in which it came, the simulator when it comes: who has
  // finished meanwhile is known to one of them.
  BedOptions o = slow_steps();
  o.ranks = 2;
  o.price.drain = 3000;
  const std::vector<simulator::Arrival> arrivals = two_seconds();
  const Times want = simulated(o, arrivals), got = served_in_own_time(o, arrivals);
  CHECK(mean_of(got.ttft) == doctest::Approx(mean_of(want.ttft)).epsilon(0.02));
  CHECK(mean_of(got.tpot) == doctest::Approx(mean_of(want.tpot)).epsilon(0.02));
}

// Transfers take time by the clock, and under the sanitizers everything is ten times as slow.
TEST_CASE("prefill and decode apart, with emulated engines, take the times simulated" *
          doctest::skip(tests::kLighter > 1)) {
  BedOptions o = slow_steps();
  o.pools = {{Stage::prefill, 1}, {Stage::decode, 1}};
  o.transfer = {500, 4, 1, 0};
  const std::vector<simulator::Arrival> arrivals = two_seconds();
  Times want = simulated(o, arrivals);
  // What the machine itself is late by counts as often as a request's way wakes a thread, and is measured meanwhile. On
  // a busy machine that is much: then it is served again twice as slowly, by which a wrong schedule stays as wrong.
  for (double scale = 1;; scale *= 2) {
    Lateness lateness;
    Times got = served(o, arrivals, scale);
    const double late = lateness.mean_ms() / scale;
    struct Compared {
      const char* name;
      double got, want, wakes;
    };
    // To the first token: dispatcher, prefill worker, its step's end, dispatcher, decode worker, receiver, the
    // transfer's end, dispatcher. Between tokens: as late at the last as at the first, give or take one.
    const std::array<Compared, 4> all = {
        Compared{"mean TTFT", mean_of(got.ttft), mean_of(want.ttft), 8},
        {"p95 TTFT", simulator::quantile(got.ttft, 0.95), simulator::quantile(want.ttft, 0.95), 16},
        {"mean TPOT", mean_of(got.tpot), mean_of(want.tpot), 1},
        {"p95 TPOT", simulator::quantile(got.tpot, 0.95), simulator::quantile(want.tpot, 0.95), 2}};
    const bool near = std::all_of(all.begin(), all.end(), [&](const Compared& c) {
      return std::abs(c.got - c.want) < 0.05 * c.want + c.wakes * late;
    });
    if ((!near || late > 0.2) && scale < 8) continue;
    for (const Compared& c : all)
      MESSAGE(std::string(c.name) << ": simulated " << c.want << " ms, served " << c.got << " ms, " << scale
                                  << " times as slow; a thread wakes " << late << " ms late");
    CHECK(near);
    break;
  }
}
