// The dispatcher over several workers: routing, overload, deaths, draining.
#include <string>

#include "tests/runtime_bed.h"

using namespace drydock;
using namespace drydock::runtime;

TEST_CASE("prefill and decode apart give the same answers, each prompt computed once") {
  BedOptions o;
  o.pools = {{Stage::prefill, 2}, {Stage::decode, 2}};
  o.transfer = {10, 0.1, 0, 0};
  SUBCASE("every prompt moves") {}
  SUBCASE("short prompts stay with the decode workers") { o.local_prefill_tokens = 100; }
  Bed bed(o);
  std::vector<std::shared_ptr<Reader>> readers;
  int64_t prompts = 0, moved = 0;
  for (uint64_t i = 0; i < 60; ++i) {
    const auto prompt = static_cast<int64_t>(10 + i * 5);
    prompts += prompt;
    moved += prompt >= o.local_prefill_tokens && i % 10 > 0;  // an answer of one token needs no decode
    readers.push_back(bed.ask(prompt, 1 + static_cast<int64_t>(i % 10), i));
  }
  for (uint64_t i = 0; i < readers.size(); ++i) {
    REQUIRE(readers[i]->wait());
    CHECK(readers[i]->tokens().size() == 1 + i % 10);
    CHECK(readers[i]->exact(i));
  }
  bed.check_empty();
  const ServiceStats stats = bed.dispatcher.stats();
  CHECK(stats.kv_transfers == moved);
  CHECK(stats.kv_transfers_failed == 0);
  int64_t computed = 0;
  for (const WorkerStats& w : stats.workers) computed += w.prompt_tokens;
  CHECK(computed == prompts);
}

TEST_CASE("more generations without a first token than the queue holds are refused") {
  BedOptions o;
  o.time_scale = 1;
  o.price.base_us = 20'000;
  o.most_waiting = 5;
  o.policy = scheduler::vllm(2048, 2);
  Bed bed(o);
  std::vector<std::shared_ptr<Reader>> readers;
  for (uint64_t i = 0; i < 5; ++i) readers.push_back(bed.ask(10, 2, i));
  Service::Id id;
  Generation g;
  g.prompt = {1};
  CHECK(bed.dispatcher.submit(g, std::make_shared<Reader>(), id) == Admission::overloaded);
  CHECK(bed.dispatcher.retry_after_s() >= 1);
  for (const auto& reader : readers) REQUIRE(reader->wait());
  CHECK(bed.dispatcher.submit(g, std::make_shared<Reader>(), id) == Admission::accepted);
}

TEST_CASE("when engines fail, answers go on elsewhere: no token lost, none twice") {
  BedOptions o;
  o.time_scale = 1;
  o.price.base_us = 200;
  o.transfer = {100, 0.5, 0, 0};
  SUBCASE("two workers") { o.pools = {{Stage::whole, 2}}; }
  SUBCASE("two of each") { o.pools = {{Stage::prefill, 2}, {Stage::decode, 2}}; }
  SUBCASE("behind pipeline stages") {
    o.pools = {{Stage::whole, 2}};
    o.price.drain = 1500;
  }
  Bed bed(o);
  // One failure at a time, of each worker in turn: a request moves at most so often in its life.
  for (int round = 0; round < 2; ++round)
    for (const auto& [name, failing] : bed.failures) {
      bed.wait_ready();
      std::vector<std::shared_ptr<Reader>> readers;
      for (uint64_t i = 0; i < 20; ++i) readers.push_back(bed.ask(50 + static_cast<int64_t>(i), 60, i));
      readers.front()->wait_tokens(10);
      *failing = 1;
      for (uint64_t i = 0; i < readers.size(); ++i) {
        REQUIRE(readers[i]->wait());
        CHECK(readers[i]->finish() == Finish::length);
        CHECK(readers[i]->tokens().size() == 60);
        CHECK(readers[i]->exact(i));
      }
    }
  bed.wait_ready();
  bed.check_empty();
  const ServiceStats stats = bed.dispatcher.stats();
  CHECK(stats.migrated > 0);
  CHECK(stats.failed == 0);
}

TEST_CASE("a request that kills every worker it meets is given up after the limit") {
  BedOptions o;
  o.pools = {{Stage::whole, 2}};
  Bed bed(o);
  for (const auto& [name, failing] : bed.failures) *failing = 1000;
  const auto reader = bed.ask(10, 5, 1);
  REQUIRE(reader->wait(30));
  CHECK(reader->finish() == Finish::failed);
  CHECK(reader->reason().find("moved too often") != std::string::npos);
  CHECK(reader->reason().find("the device is gone") != std::string::npos);
  CHECK(bed.dispatcher.stats().migrated == 3);
}

TEST_CASE("drained, it takes nothing new and finishes what it has; past the limit it cancels") {
  BedOptions o;
  o.time_scale = 1;
  o.price.base_us = 1000;
  Bed bed(o);
  const auto reader = bed.ask(10, 50, 1);
  Service::Id id;
  Generation g;
  g.prompt = {1};
  SUBCASE("in time") {
    CHECK(bed.dispatcher.drain(10));
    CHECK(reader->finish() == Finish::length);
    CHECK(reader->exact(1));
  }
  SUBCASE("too late") {
    CHECK_FALSE(bed.dispatcher.drain(0.02));
    REQUIRE(reader->wait());
    CHECK(reader->finish() == Finish::cancelled);
  }
  CHECK(bed.dispatcher.submit(g, std::make_shared<Reader>(), id) == Admission::draining);
  CHECK_FALSE(bed.dispatcher.ready());
}

TEST_CASE("kv_aware routing sends a conversation where its prefix is") {
  BedOptions o;
  o.pools = {{Stage::whole, 4}};
  o.policy.prefix_cache = true;
  o.router = scheduler::RouterPolicy::kv_aware;
  Bed bed(o);
  for (int turn = 0; turn < 5; ++turn) {
    Generation g;
    for (int i = 0; i < 200 + 50 * turn; ++i) g.prompt.push_back(i % 251);
    g.most_tokens = 2;
    auto reader = std::make_shared<Reader>();
    Service::Id id;
    REQUIRE(bed.dispatcher.submit(g, reader, id) == Admission::accepted);
    REQUIRE(reader->wait());
  }
  int busy = 0;
  int64_t cached = 0;
  for (const WorkerStats& w : bed.dispatcher.stats().workers) busy += w.steps > 0, cached += w.cached_prompt_tokens;
  CHECK(busy == 1);
  CHECK(cached == 192 + 240 + 288 + 336);  // full blocks of the 200, 250, 300 and 350 tokens that were there
}
