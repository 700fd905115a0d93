// One worker and its engine: batches, stop tokens, preemption, prefix cache, drafts, ranks.
#include "tests/runtime_bed.h"

using namespace drydock;
using namespace drydock::runtime;

TEST_CASE("answers are the seed's tokens, as many as asked for, whatever shares the batch") {
  BedOptions o;
  o.policy = scheduler::vllm(64, 8);  // prompts in chunks, eight at a time
  SUBCASE("vLLM's rules") {}
  SUBCASE("SGLang's rules") { o.policy = scheduler::sglang(64, 8); }
  SUBCASE("TensorRT-LLM's rules, results a step late") { o.policy = scheduler::trtllm(256, 8, false, true); }
  SUBCASE("two attention-DP ranks") { o.ranks = 2; }
  SUBCASE("prefix cache") { o.policy.prefix_cache = true; }
  Bed bed(o);
  std::vector<std::shared_ptr<Reader>> readers;
  for (uint64_t i = 0; i < 40; ++i)
    readers.push_back(bed.ask(1 + static_cast<int64_t>(i * 7), 1 + static_cast<int64_t>(i % 13), i));
  for (uint64_t i = 0; i < readers.size(); ++i) {
    REQUIRE(readers[i]->wait());
    CHECK(readers[i]->finish() == Finish::length);
    CHECK(readers[i]->tokens().size() == 1 + i % 13);
    CHECK(readers[i]->exact(i));
  }
  bed.check_empty();
  const ServiceStats stats = bed.dispatcher.stats();
  CHECK(stats.finished == 40);
  CHECK(stats.failed + stats.cancelled + stats.migrated + stats.queued + stats.running == 0);
}

TEST_CASE("a stop token ends the answer and is left out") {
  BedOptions o;
  SUBCASE("one worker") {}
  SUBCASE("prefill and decode apart") { o.pools = {{Stage::prefill, 1}, {Stage::decode, 1}}; }
  Bed bed(o);
  for (const int64_t at : {0, 1, 5}) {  // the first token too
    CAPTURE(at);
    // The first seed whose token at `at` does not come earlier.
    uint64_t seed = 1;
    const auto earlier = [&](uint64_t s) {
      for (int64_t i = 0; i < at; ++i)
        if (emulated_token(s, i) == emulated_token(s, at)) return true;
      return false;
    };
    while (earlier(seed)) ++seed;
    Generation g;
    g.prompt = {1, 2, 3};
    g.most_tokens = 20;
    g.sampling.seed = seed;
    g.stop_tokens = {1000, emulated_token(seed, at)};
    auto reader = std::make_shared<Reader>();
    Service::Id id;
    REQUIRE(bed.dispatcher.submit(g, reader, id) == Admission::accepted);
    REQUIRE(reader->wait());
    CHECK(reader->finish() == Finish::stop);
    CHECK(reader->tokens().size() == static_cast<size_t>(at));
    CHECK(reader->exact(seed));
  }
  bed.check_empty();
}

TEST_CASE("a full KV cache preempts and recomputes, and no answer changes") {
  BedOptions o;
  o.kv_blocks = 24;  // of 16 tokens: six sequences of 64 begin, none can grow to its end beside the others
  o.policy = scheduler::vllm(512, 8);
  Bed bed(o);
  std::vector<std::shared_ptr<Reader>> readers;
  for (uint64_t i = 0; i < 12; ++i) readers.push_back(bed.ask(60, 100, i));
  for (uint64_t i = 0; i < readers.size(); ++i) {
    REQUIRE(readers[i]->wait());
    CHECK(readers[i]->tokens().size() == 100);
    CHECK(readers[i]->exact(i));
  }
  bed.check_empty();
  CHECK(bed.dispatcher.stats().workers[0].preemptions > 0);
}

TEST_CASE("what does not fit at all is refused, what is too long is told so") {
  BedOptions o;
  o.kv_blocks = 10;
  Bed bed(o);
  Generation g;
  g.prompt.assign(100, 1);
  g.most_tokens = 1000;
  Service::Id id;
  auto reader = std::make_shared<Reader>();
  CHECK(bed.dispatcher.submit(g, reader, id) == Admission::too_long);
  g.most_tokens = 0;
  CHECK(bed.dispatcher.submit(g, reader, id) == Admission::too_long);
  CHECK_FALSE(reader->finish().has_value());
  CHECK(bed.dispatcher.stats().refused == 2);
}

TEST_CASE("the prefix cache saves what was computed before, answers included") {
  BedOptions o;
  o.policy.prefix_cache = true;
  Bed bed(o);
  Generation g;
  for (int i = 0; i < 100; ++i) g.prompt.push_back(i);
  g.most_tokens = 60;
  g.sampling.seed = 5;
  Service::Id id;
  auto first = std::make_shared<Reader>();
  REQUIRE(bed.dispatcher.submit(g, first, id) == Admission::accepted);
  REQUIRE(first->wait());
  // The conversation goes on: prompt, answer and 10 new tokens.
  for (const Token t : first->tokens()) g.prompt.push_back(t);
  for (int i = 0; i < 10; ++i) g.prompt.push_back(7);
  auto second = std::make_shared<Reader>();
  REQUIRE(bed.dispatcher.submit(g, second, id) == Admission::accepted);
  REQUIRE(second->wait());
  CHECK(second->exact(5));
  const WorkerStats w = bed.dispatcher.stats().workers[0];
  CHECK(w.prompt_tokens == 100 + 170);
  // KV is there for 159 tokens, all but the answer's last: nine full blocks of 16.
  CHECK(w.cached_prompt_tokens == 144);
  bed.check_empty();
}

TEST_CASE("with drafts the answer is the same, in fewer steps") {
  BedOptions o;
  o.policy.decode_tokens = 4;
  const scheduler::Speculation speculation{scheduler::DraftMethod::draft, {0.8, 0.7, 0.6}};
  o.drafts = [&](const DraftQuestion& q) { return emulated_drafts(speculation, q.sampling.seed, q.index, q.most); };
  SUBCASE("enough room") {}
  SUBCASE("full KV cache") { o.kv_blocks = 24; }
  SUBCASE("prefill and decode apart") { o.pools = {{Stage::prefill, 1}, {Stage::decode, 1}}; }
  Bed bed(o);
  std::vector<std::shared_ptr<Reader>> readers;
  for (uint64_t i = 0; i < 8; ++i) readers.push_back(bed.ask(40, 200, i));
  for (uint64_t i = 0; i < readers.size(); ++i) {
    REQUIRE(readers[i]->wait());
    CHECK(readers[i]->tokens().size() == 200);
    CHECK(readers[i]->exact(i));
  }
  bed.check_empty();
}

TEST_CASE("drafts win as many tokens a step as their acceptance says") {
  BedOptions o;
  o.policy.decode_tokens = 4;
  const scheduler::Speculation speculation{scheduler::DraftMethod::draft, {0.8, 0.7, 0.6}};
  o.drafts = [&](const DraftQuestion& q) { return emulated_drafts(speculation, q.sampling.seed, q.index, q.most); };
  Bed bed(o);
  const auto reader = bed.ask(16, 8000, 3);
  REQUIRE(reader->wait());
  const auto steps = static_cast<double>(bed.dispatcher.stats().workers[0].steps);
  // 1 + 0.8 + 0.56 + 0.336 = 2.696 tokens a step; a step's variance is below 1.6, so that of the mean of 2967 steps is
  // below 0.0232^2: 5 of these are 0.12.
  CHECK(std::abs(8000 / steps - speculation.expected_tokens()) < 0.12);
}

TEST_CASE("cancelled wherever it is, a request leaves no block behind") {
  BedOptions o;
  o.time_scale = 1;
  o.price.base_us = 300;
  o.transfer = {500, 2, 0, 0};
  o.policy = scheduler::vllm(256, 4);  // some wait
  SUBCASE("one worker") {}
  SUBCASE("prefill and decode apart") { o.pools = {{Stage::prefill, 1}, {Stage::decode, 1}}; }
  SUBCASE("results a step late") { o.policy = scheduler::trtllm(1024, 4, true, true); }
  Bed bed(o);
  core::Random random(1);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::pair<std::shared_ptr<Reader>, Service::Id>> asked;
    for (uint64_t i = 0; i < 6; ++i) {
      Service::Id id;
      auto reader = bed.ask(200, 30, i, &id);
      asked.emplace_back(reader, id);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 8000)));
    for (auto& [reader, id] : asked) bed.dispatcher.cancel(id);
    for (uint64_t i = 0; i < asked.size(); ++i) {
      REQUIRE(asked[i].first->wait());
      CHECK(asked[i].first->exact(i));
    }
  }
  bed.check_empty();
}

TEST_CASE("a deadline ends the answer") {
  BedOptions o;
  o.time_scale = 1;
  o.price.base_us = 2000;
  Bed bed(o);
  Generation g;
  g.prompt = {1};
  g.most_tokens = 10'000;
  g.deadline = Clock::now() + std::chrono::milliseconds(60);
  auto reader = std::make_shared<Reader>();
  Service::Id id;
  REQUIRE(bed.dispatcher.submit(g, reader, id) == Admission::accepted);
  REQUIRE(reader->wait(5));
  CHECK(reader->finish() == Finish::deadline);
  CHECK(reader->tokens().size() > 0);
  CHECK(reader->exact(0));
  bed.check_empty();
}
