// Steps that are formed while the one before is computed: the answers must be those without, whatever happens
// meanwhile.
#include "tests/effort.h"
#include "tests/runtime_overlap_bed.h"

using namespace drydock;
using namespace drydock::runtime;

namespace {

// The answer, cut before the first of `stops`.
std::vector<Token> right_answer(const std::vector<Token>& prompt, int64_t tokens, uint64_t seed,
                                const std::vector<Token>& stops) {
  std::vector<Token> out = memory_answer(prompt, tokens, seed);
  out.erase(std::find_first_of(out.begin(), out.end(), stops.begin(), stops.end()), out.end());
  return out;
}

}  // namespace

TEST_CASE("answers with overlapping steps are those without: lengths, stop tokens, preemption, prefixes, cancelling") {
  OverlapOptions o;
  int64_t shared = 0;  // tokens that prompts begin with in common
  SUBCASE("room for all") {}
  SUBCASE("a full KV cache") { o.kv_blocks = 24; }
  SUBCASE("prefixes in common") { o.prefix_cache = true, shared = 40; }
  SUBCASE("prefixes in a full KV cache") { o.prefix_cache = true, shared = 40, o.kv_blocks = 28; }
  SUBCASE("prefill and decode apart") { o.apart = true; }
  SUBCASE("apart, a full KV cache") { o.apart = true, o.kv_blocks = 24; }
  OverlapBed bed(o);
  core::Random random(7);
  struct Asked {
    std::shared_ptr<Reader> reader;
    Service::Id id;
    std::vector<Token> right;
    int64_t most;
    bool cancelled;
  };
  std::vector<Asked> asked;
  for (uint64_t seed = 1; seed <= 60 / tests::kLighter + 20; ++seed) {
    std::vector<Token> prompt = overlap_prompt(0, shared);
    const auto own = overlap_prompt(seed, random.integer(1, 90));
    prompt.insert(prompt.end(), own.begin(), own.end());
    const int64_t most = random.integer(1, 60);
    const std::vector<Token> whole = memory_answer(prompt, most, seed);
    std::vector<Token> stops;  // half of the answers meet one, at their first or last token too
    if (seed % 2 == 0) stops = {whole[static_cast<size_t>(random.integer(0, most - 1))]};
    if (seed % 10 == 0) stops = {whole.back()};
    Asked a{nullptr, 0, right_answer(prompt, most, seed, stops), most, seed % 7 == 0};
    a.reader = bed.ask(prompt, most, seed, stops, &a.id);
    asked.push_back(std::move(a));
    if (random.uniform() < 0.3) std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 3000)));
    if (asked.size() > 3) {
      Asked& earlier = asked[asked.size() - 4];
      if (earlier.cancelled) bed.dispatcher.cancel(earlier.id);
    }
  }
  for (const Asked& a : asked) {
    if (a.cancelled) bed.dispatcher.cancel(a.id);
    REQUIRE(a.reader->wait());
    const std::vector<Token> got = a.reader->tokens();
    if (a.reader->finish() == Finish::cancelled) {
      REQUIRE(got.size() <= a.right.size());
      CHECK(std::equal(got.begin(), got.end(), a.right.begin()));
      continue;
    }
    CHECK(got == a.right);
    CHECK(a.reader->finish() == (static_cast<int64_t>(a.right.size()) == a.most ? Finish::length : Finish::stop));
  }
  bed.check_empty();
  CHECK(bed.log->most_under_way == 2);
  CHECK(bed.log->followed > 200 / tests::kLighter);
  if (o.kv_blocks < 30 && !o.apart) CHECK(bed.dispatcher.stats().workers[0].preemptions > 0);
}

TEST_CASE("a stop token in the last place leaves the scheduler once") {
  OverlapOptions o;
  SUBCASE("overlapping") {}
  SUBCASE("not") { o.overlap = false; }
  OverlapBed bed(o);
  const auto stopped_last = [&](uint64_t seed) {
    const std::vector<Token> prompt = overlap_prompt(seed, 20), whole = memory_answer(prompt, 9, seed);
    const auto reader = bed.ask(prompt, 9, seed, {whole.back()});
    REQUIRE(reader->wait());
    CHECK(reader->tokens() == right_answer(prompt, 9, seed, {whole.back()}));
  };
  for (uint64_t seed = 1; seed < 4; ++seed) stopped_last(seed);
  // Would two of them now have one place, one would get the other's tokens, or never end.
  std::vector<std::shared_ptr<Reader>> readers;
  for (uint64_t seed = 10; seed < 18; ++seed) readers.push_back(bed.ask(overlap_prompt(seed, 30), 40, seed));
  for (uint64_t seed = 10; seed < 18; ++seed) {
    REQUIRE(readers[seed - 10]->wait());
    CHECK(readers[seed - 10]->tokens() == memory_answer(overlap_prompt(seed, 30), 40, seed));
  }
  bed.check_empty();
}

TEST_CASE("with drafts, and told not to, steps do not overlap") {
  OverlapOptions o;
  SUBCASE("drafts") {
    o.drafts = one_by_one([](const DraftQuestion& q) { return std::vector<Token>(static_cast<size_t>(q.most), 5); });
  }
  SUBCASE("told not to") { o.overlap = false; }
  OverlapBed bed(o);
  const auto reader = bed.ask(overlap_prompt(1, 20), 50, 1);
  REQUIRE(reader->wait());
  CHECK(reader->tokens() == memory_answer(overlap_prompt(1, 20), 50, 1));
  CHECK(bed.log->most_under_way == 1);
  CHECK(bed.log->followed == 0);
}

namespace {

// Takes as long to be told as a busy host does, and looks at how many steps the engine has to do then.
struct SlowSink : WorkerSink {
  void news(std::vector<News> news) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    for (const News& n : news)
      if (n.kind == NewsKind::finished) ended = true;
  }
  void lost(const std::string& reason) override { FAIL(reason); }
  std::atomic<bool> ended{false};
};

// Milliseconds a step of 5 ms takes, with 2 ms to tell its results and 1 ms to launch the next.
double step_ms(bool overlap) {
  constexpr int64_t kSteps = 60;
  SlowSink sink;
  WorkerSpec spec;
  spec.policy = scheduler::vllm(128, 16);
  spec.kv_blocks = 100, spec.block_tokens = 16, spec.overlap = overlap;
  const auto log = std::make_shared<EngineLog>();
  Worker worker(spec, std::make_unique<LaunchingEngine>(100, 16, LaunchingEngine::Times{5000, 1000}, log), sink,
                nullptr);
  Start start;
  start.attempt = 1, start.tokens = overlap_prompt(1, 20), start.most_tokens = kSteps;
  const auto begin = Clock::now();
  worker.start(start);
  while (!sink.ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count() / kSteps;
}

}  // namespace

TEST_CASE("the host's part of a step passes while the next one is computed") {
  // Without overlap 5 + 2 + 1 = 8 ms; with it 5, and what a busy machine's sleeps add to both. Three of eight are
  // hidden: two and a half of them must be, in one of five tries.
  double with = 0, without = 0;
  for (int tried = 0; tried < 5; ++tried) {
    without = step_ms(false);
    with = step_ms(true);
    if (with < without * 5.5 / 8) break;
  }
  MESSAGE("without ", without, " ms a step, with ", with);
  CAPTURE(without);
  CHECK(with < without * 5.5 / 8);
}

TEST_CASE("who comes early in a step is in the next one, as without overlap") {
  OverlapOptions o;
  o.times = {10'000, 0};
  OverlapBed bed(o);
  const auto running = bed.ask(overlap_prompt(1, 20), 2000, 1);
  REQUIRE(running->wait_tokens(12));  // how long steps take is known
  std::vector<int> steps;
  for (uint64_t seed = 2; seed < 11; ++seed) {
    const int before = bed.log->steps;
    while (bed.log->steps == before) std::this_thread::sleep_for(std::chrono::microseconds(200));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const auto reader = bed.ask(overlap_prompt(seed, 20), 1, seed);
    REQUIRE(reader->wait());
    steps.push_back(bed.log->steps - before - 1);
    REQUIRE(running->wait_tokens(running->tokens().size() + 3));
  }
  // The end of the step under way, and the next: two. Formed at once, the next would be without it: three. The machine
  // may be late now and then.
  std::sort(steps.begin(), steps.end());
  CHECK(steps[steps.size() / 2] == 2);
}
