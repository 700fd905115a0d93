// KV between workers of one process, where the one that holds it is stuck.
#include "runtime/kv_receiver.h"
#include "tests/runtime_overlap_bed.h"

using namespace drydock;
using namespace drydock::runtime;

namespace {

// A worker that holds KV of attempts 1 to 3, and can be stuck.
struct StuckHolder : WorkerSink {
  struct Engine : MemoryEngine {
    explicit Engine(std::shared_ptr<std::atomic<bool>> is_open) : MemoryEngine(100, 16), open(std::move(is_open)) {}
    void step(std::span<const RankWork> ranks, StepResult& result) override {
      bool sticks = false;
      for (const SequenceWork& w : ranks[0].prompts) sticks |= w.tokens.size() > 100;
      while (sticks && !*open) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      MemoryEngine::step(ranks, result);
    }
    std::shared_ptr<std::atomic<bool>> open;
  };

  explicit StuckHolder(const std::string& name) {
    WorkerSpec spec;
    spec.name = name, spec.stage = Stage::prefill, spec.policy = scheduler::vllm(512, 16);
    spec.kv_blocks = 100, spec.block_tokens = 16;
    worker = std::make_unique<Worker>(spec, std::make_unique<Engine>(open), *this, nullptr);
    for (Attempt a = 1; a < 4; ++a) start(a, 3);
    for (int i = 0; i < 5000 && worker->pulse().generated_tokens < 3; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ~StuckHolder() override { *open = true; }
  void start(Attempt attempt, int64_t prompt) {
    Start start;
    start.attempt = attempt, start.stage = Stage::prefill, start.tokens = overlap_prompt(attempt, prompt);
    start.most_tokens = 2;
    worker->start(start);
  }
  void stick() {
    start(9, 200);
    while (worker->pulse().step_age_seconds <= 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  void news(std::vector<News>) override {}
  void lost(const std::string&) override {}
  std::shared_ptr<std::atomic<bool>> open = std::make_shared<std::atomic<bool>>(false);
  std::unique_ptr<Worker> worker;
};

}  // namespace

TEST_CASE("in one process, a stuck holder of KV is waited for only while its worker lives and somebody wants the KV") {
  StuckHolder stuck("prefill/0"), lively("prefill/1");
  LocalKv kv;
  kv.add("prefill/0", stuck.worker.get());
  kv.add("prefill/1", lively.worker.get());
  stuck.stick();
  std::mutex mutex;
  std::vector<std::string> done;
  auto receiver = std::make_unique<KvReceiver>(
      [&](const std::string& name) { return kv.connect(name); }, 16 * sizeof(Token),
      KvReceiver::Hooks{[] { return 0.0; }, [](double) {},
                        [](Attempt, int64_t, std::span<const std::byte>) { return true; },
                        [&](Attempt attempt, bool came, const std::string&) {
                          const std::scoped_lock lock(mutex);
                          done.push_back(std::to_string(attempt) + (came ? " came" : " lost"));
                        }});
  const auto begin = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  const auto wait_for = [&](size_t count) {
    while (seconds() < 5) {
      {
        const std::scoped_lock lock(mutex);
        if (done.size() >= count) return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  };
  receiver->add({1, {"prefill/0", 1, 3}, 1, true});
  receiver->add({2, {"prefill/1", 2, 3}, 1, true});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  // Each within a heartbeat of 0.15 s, on a busy machine within a second.
  SUBCASE("its request is cancelled, or its time is over") {
    receiver->forget(1);
    wait_for(1);
    CHECK(done == std::vector<std::string>{"2 came"});
  }
  SUBCASE("its worker is known to be dead") {
    kv.remove("prefill/0");
    wait_for(2);
    CHECK(done == std::vector<std::string>{"1 lost", "2 came"});
  }
  SUBCASE("the one who waits ends") {}
  receiver.reset();
  CHECK(seconds() < 1);
}

TEST_CASE("in one process, what a stuck prefill engine holds goes on elsewhere once its step is too long") {
  const auto open = std::make_shared<std::atomic<bool>>(false);
  DispatcherSpec spec;
  spec.pools = {{Stage::prefill, 2}, {Stage::decode, 1}};
  spec.longest_step_s = 0.3;
  Dispatcher dispatcher(spec);
  std::vector<LocalWorker> workers;
  for (const auto& [stage, index] : {std::pair{Stage::prefill, 0}, {Stage::prefill, 1}, {Stage::decode, 0}}) {
    WorkerSpec w;
    w.name = worker_name(stage, index);
    w.stage = stage;
    w.policy = scheduler::vllm(512, 16);
    w.kv_blocks = 100, w.block_tokens = 16;
    const auto sticks = w.name == "prefill/0" ? open : std::make_shared<std::atomic<bool>>(true);
    workers.push_back({w, [sticks] { return std::make_unique<StuckHolder::Engine>(sticks); }});
  }
  LocalFleet fleet(dispatcher, std::move(workers), std::chrono::milliseconds(5));
  std::vector<std::pair<std::shared_ptr<Reader>, std::vector<Token>>> asked;
  const auto begin = Clock::now();
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Generation g;
    g.prompt = overlap_prompt(seed, seed % 3 == 0 ? 200 : 20);  // a long one sticks prefill/0 for good
    g.most_tokens = 30;
    g.sampling.seed = seed;
    asked.emplace_back(std::make_shared<Reader>(), memory_answer(g.prompt, 30, seed));
    Service::Id id;
    REQUIRE(dispatcher.submit(g, asked.back().first, id) == Admission::accepted);
  }
  for (const auto& [reader, right] : asked) {
    REQUIRE(reader->wait(10));
    CHECK(reader->tokens() == right);
  }
  // 0.3 s until it is known, a heartbeat to look and one to hear of it; it was up to 60 s.
  CHECK(std::chrono::duration<double>(Clock::now() - begin).count() < 3);
  *open = true;
}
