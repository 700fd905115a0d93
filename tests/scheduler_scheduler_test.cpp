#include "scheduler/scheduler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>

#include "core/random.h"
#include "tests/effort.h"

using namespace drydock;
using namespace drydock::scheduler;

namespace {

Request request(int64_t prompt, int64_t output) {
  Request r;
  r.prompt_tokens = prompt;
  r.output_tokens = output;
  return r;
}

// One step; what was in it, as text: "p0:100@0! d1" is a last chunk of 100 tokens of request 0 and a token of
// request 1.
std::string step(Scheduler& s) {
  const Batch& b = s.next_batch();
  std::string out;
  for (const Chunk& c : b.prompts)
    out += (out.empty() ? "p" : " p") + std::to_string(c.id) + ":" + std::to_string(c.tokens) + "@" +
           std::to_string(c.context) + (c.last ? "!" : "");
  for (const RequestId id : b.decodes) out += (out.empty() ? "d" : " d") + std::to_string(id);
  if (!b.empty()) s.complete();
  s.check();
  return out;
}

}  // namespace

TEST_CASE("vLLM's rules: running requests first, then prompt chunks within the budget") {
  Scheduler s(vllm(100, 8), 1000, 16);
  s.add(request(60, 3));
  s.add(request(150, 2));
  CHECK(step(s) == "p0:60@0! p1:40@0");
  CHECK(step(s) == "p1:99@40 d0");    // one token of the budget is request 0's
  CHECK(step(s) == "p1:11@139! d0");  // request 0 has its third token and leaves
  CHECK(step(s) == "d1");
  CHECK(step(s) == "");
  CHECK(s.free_blocks() == 1000);
}

TEST_CASE("SGLang's rules: while a prompt can be added, decode waits") {
  Scheduler s(sglang(100, 8), 1000, 16);
  s.add(request(60, 3));
  s.add(request(150, 2));
  CHECK(step(s) == "p0:60@0! p1:40@0");
  CHECK(step(s) == "p1:100@40");
  CHECK(step(s) == "p1:10@140!");
  CHECK(step(s) == "d0 d1");
  CHECK(step(s) == "d0");
}

TEST_CASE("TensorRT-LLM's rules: whole prompts beside decode, and nothing admitted that might not finish") {
  Scheduler s(trtllm(100, 8), 10, 16);  // 160 tokens of KV
  s.add(request(60, 20));               // 5 blocks to its end
  s.add(request(40, 40));               // 5
  s.add(request(16, 1));                // 2: must wait
  CHECK(step(s) == "p0:60@0! p1:40@0!");
  CHECK(step(s) == "d0 d1");
  SUBCASE("a prompt over the budget runs by itself") {
    Scheduler big(trtllm(100, 8), 100, 16);
    big.add(request(10, 5));
    big.add(request(250, 2));
    CHECK(step(big) == "p0:10@0!");
    CHECK(step(big) == "p1:250@0! d0");
  }
  SUBCASE("MAX_UTILIZATION admits at once") {
    Scheduler packed(trtllm(100, 8, true), 10, 16);
    packed.add(request(60, 20));
    packed.add(request(24, 40));
    packed.add(request(16, 1));
    CHECK(step(packed) == "p0:60@0! p1:24@0! p2:16@0!");
  }
}

TEST_CASE("overlap scheduling keeps a finished request in the batch, and a new one out of it, for a step") {
  Scheduler s(trtllm(100, 8, false, true), 100, 16);
  s.add(request(10, 2));
  CHECK(step(s) == "p0:10@0!");
  s.next_batch();
  const RequestId late = s.add(request(10, 1));  // comes while a step is under way
  CHECK(s.complete().finished.size() == 1);      // request 0 has both tokens
  CHECK(step(s) == "d0");                        // and is still in the next step
  CHECK(step(s) == "p" + std::to_string(late) + ":10@0!");
}

TEST_CASE("without a block the last request is preempted and computed again, its tokens included") {
  Scheduler s(vllm(100, 8), 4, 16);  // 64 tokens
  s.add(request(31, 20));
  s.add(request(30, 20));
  CHECK(step(s) == "p0:31@0! p1:30@0!");  // 2 blocks each
  CHECK(step(s) == "d0 d1");              // 32 and 31 tokens held
  CHECK(step(s) == "d0");                 // request 0 needs a third block: request 1 goes
  CHECK(s.counters().preemptions == 1);
  CHECK(s.waiting() == 1);
  std::string last;
  for (std::string now; !(now = step(s)).empty();) {
    if (now.find("p1") != std::string::npos) last = now;
  }
  // It had its prompt of 30 and two tokens: 32 tokens are computed again and make the third.
  CHECK(last == "p1:32@0!");
  CHECK(s.free_blocks() == 4);
}

TEST_CASE("a swapped request comes back without computing its prompt again") {
  Policy p = vllm(100, 8);
  p.preemption = Preemption::swap;
  Scheduler s(p, 4, 16);
  s.add(request(31, 20));
  s.add(request(30, 20));
  step(s);
  step(s);
  const Batch& out = s.next_batch();
  CHECK(out.swapped_out == 31);
  s.complete();
  int64_t in = 0;
  while (true) {
    const Batch& b = s.next_batch();
    if (b.empty()) break;
    CHECK(b.prompts.empty());
    in += b.swapped_in;
    s.complete();
  }
  CHECK(in == 31);
}

TEST_CASE("priority order admits the smaller number first and preempts the larger") {
  Policy p = vllm(100, 1);
  p.order = Order::priority;
  Scheduler s(p, 100, 16);
  Request low = request(10, 1), high = request(20, 1);
  low.priority = 5;
  high.priority = 1;
  s.add(low);
  s.add(high);
  CHECK(step(s) == "p1:20@0!");
  CHECK(step(s) == "p0:10@0!");
}

TEST_CASE("a shared prefix is computed once") {
  Policy p = vllm(1000, 8);
  p.prefix_cache = true;
  Scheduler s(p, 100, 16);
  const uint64_t hashes[] = {1, 2, 3, 4};
  Request r = request(64, 2);
  r.hashes = hashes;
  s.add(r);
  CHECK(step(s) == "p0:64@0!");
  s.add(r);
  // The whole prompt is known, but its last token must be computed: three of four blocks help.
  CHECK(step(s) == "p1:16@48! d0");
  CHECK(s.counters().cached_tokens == 48);
}

TEST_CASE("a decode worker pulls KV when it has room, a prefill worker keeps it until then") {
  Scheduler prefill(vllm(100, 8), 10, 16), decode(vllm(100, 8), 10, 16);
  Request r = request(50, 1);
  r.keeps_kv = true;
  const RequestId at_prefill = prefill.add(r);
  step(prefill);
  CHECK(prefill.free_blocks() == 6);
  Request d = request(50, 3);
  d.prefilled = true;
  const RequestId at_decode = decode.add(d);
  const Batch& b = decode.next_batch();
  REQUIRE(b.pulls.size() == 1);
  CHECK(b.empty());
  CHECK(decode.free_blocks() == 6);
  decode.arrived(at_decode);
  prefill.release(at_prefill);
  CHECK(prefill.free_blocks() == 10);
  CHECK(step(decode) == "d0");
  CHECK(step(decode) == "d0");
  CHECK(step(decode) == "");
  CHECK(decode.free_blocks() == 10);
}

TEST_CASE("what can never fit is known beforehand") {
  Scheduler s(vllm(100, 8), 10, 16);
  CHECK(s.can_run(request(150, 10)));
  CHECK(!s.can_run(request(150, 11)));
}

TEST_CASE("a stopped request leaves from wherever it is") {
  Scheduler s(vllm(100, 1), 10, 16);
  const RequestId a = s.add(request(20, 50)), b = s.add(request(20, 5));
  step(s);
  s.stop(b);
  CHECK(s.waiting() == 0);
  s.next_batch();
  s.stop(a);
  s.complete();
  CHECK(s.running() == 0);
  CHECK(s.free_blocks() == 10);
  CHECK_NOTHROW(s.check());
}

namespace {

int64_t prompts_in(const Batch& b) { return static_cast<int64_t>(b.prompts.size()); }

}  // namespace

TEST_CASE("prompts wait beside decode for others, for so many steps or until the step has its share") {
  Policy p = trtllm(100, 8);
  p.wait_steps = 3;
  p.wait_share = 0.5;
  Scheduler s(p, 100, 16);
  s.add(request(10, 50));
  CHECK(prompts_in(s.next_batch()) == 1);  // nothing decodes: nothing to wait beside
  s.complete();
  s.add(request(20, 5));
  for (int i = 0; i < 3; ++i) {
    CHECK(prompts_in(s.next_batch()) == 0);
    s.complete();
  }
  CHECK(prompts_in(s.next_batch()) == 1);  // after three steps
  s.complete();
  s.add(request(20, 5));
  CHECK(prompts_in(s.next_batch()) == 0);
  s.complete();
  s.add(request(28, 5));
  CHECK(prompts_in(s.next_batch()) == 2);  // 20 + 28 + 2 that decode are half of 100
}

TEST_CASE("new requests are looked at every so many steps of decode, after prompts, and when idle") {
  Policy p = sglang(100, 8);
  p.poll_steps = 4;
  Scheduler s(p, 100, 16);
  s.add(request(10, 50));
  CHECK(prompts_in(s.next_batch()) == 1);  // step 0; idle
  s.complete();
  s.add(request(10, 50));
  CHECK(prompts_in(s.next_batch()) == 1);  // step 1, after prompts; counts from here
  s.complete();
  CHECK(s.next_batch().decodes.size() == 2);  // 2: the last look
  s.complete();
  s.add(request(10, 50));
  const Batch& waits = s.next_batch(100);
  CHECK(waits.prompts.empty());
  CHECK(waits.repeats == 3);  // 3, 4, 5
  s.complete(3);
  CHECK(prompts_in(s.next_batch()) == 1);  // 6
}

namespace {

Policy random_policy(core::Random& random) {
  const auto budget = static_cast<int64_t>(20 + random.next() % 200),
             most = static_cast<int64_t>(1 + random.next() % 12);
  Policy p;
  switch (random.next() % 4) {
    case 0:
      p = vllm(budget, most);
      break;
    case 1:
      p = sglang(budget, most);
      break;
    case 2:
      p = trtllm(budget, most, false, random.next() % 2 == 0);
      break;
    default:
      p = trtllm(budget, most, true, random.next() % 2 == 0);
  }
  if (random.next() % 4 == 0) p.order = Order::priority;
  if (random.next() % 4 == 0) p.preemption = Preemption::swap;
  if (random.next() % 4 == 0) p.watermark = 0.05;
  if (random.next() % 4 == 0) p.wait_steps = static_cast<int64_t>(1 + random.next() % 9), p.wait_share = 0.8;
  if (random.next() % 4 == 0) p.poll_steps = static_cast<int64_t>(2 + random.next() % 9);
  p.prefix_cache = random.next() % 2 == 0;
  return p;
}

struct Sent {
  int64_t output = 0, got = 0;
};

}  // namespace

TEST_CASE("whatever comes, every request gets all its tokens and every block comes back") {
  for (uint64_t seed = 1; seed <= 150 / drydock::tests::kLighter; ++seed) {
    core::Random random(seed);
    const Policy policy = random_policy(random);
    Scheduler s(policy, static_cast<int64_t>(12 + random.next() % 60), 16);
    std::map<RequestId, Sent> open;
    int64_t to_send = 60, finished = 0;
    std::vector<uint64_t> hashes(30);
    for (int steps = 0; finished < 60; ++steps) {
      REQUIRE(steps < 20'000);
      while (to_send > 0 && random.uniform() < 0.4) {
        Request r =
            request(static_cast<int64_t>(1 + random.next() % 120), static_cast<int64_t>(1 + random.next() % 40));
        const uint64_t text = random.next() % 3;
        for (size_t i = 0; i < hashes.size(); ++i) hashes[i] = text * 1000 + i;
        r.hashes = hashes;
        r.priority = static_cast<int>(random.next() % 3);
        --to_send;
        if (!s.can_run(r)) {
          ++finished;
          continue;
        }
        open[s.add(r)] = {r.output_tokens, 0};
      }
      const Batch& b = s.next_batch();
      REQUIRE(b.prompts.size() + b.decodes.size() <= static_cast<size_t>(policy.max_sequences));
      int64_t tokens = static_cast<int64_t>(b.decodes.size());
      for (const Chunk& c : b.prompts) tokens += c.tokens;
      if (policy.chunks) REQUIRE(tokens <= policy.max_tokens);
      if (b.empty()) {
        REQUIRE((to_send > 0 || finished == 60));
        continue;
      }
      for (const Chunk& c : b.prompts) open[c.id].got += c.last;
      for (const RequestId id : b.decodes) open[id].got += 1;
      const Progress& p = s.complete();
      for (const RequestId id : p.finished) {
        REQUIRE(open.at(id).got == open.at(id).output);
        if (policy.result_delay == 0) open.erase(id);
        ++finished;
      }
      REQUIRE_NOTHROW(s.check());
    }
    while (!s.next_batch().empty()) s.complete();
    CHECK(s.free_blocks() == s.total_blocks());
  }
}

TEST_CASE("many steps at once end where as many single steps do") {
  for (uint64_t seed = 1; seed <= 60 / drydock::tests::kLighter; ++seed) {
    core::Random random(seed);
    const Policy policy = random_policy(random);
    const auto blocks = static_cast<int64_t>(12 + random.next() % 60);
    Scheduler one(policy, blocks, 16), many(policy, blocks, 16);
    for (int i = 0; i < 30; ++i) {
      const Request r =
          request(static_cast<int64_t>(1 + random.next() % 120), static_cast<int64_t>(1 + random.next() % 60));
      if (!one.can_run(r)) continue;
      one.add(r);
      many.add(r);
    }
    int64_t jumps = 0;
    while (true) {
      const Batch& b = many.next_batch(1000);
      if (b.empty()) break;
      const int64_t steps = b.repeats;
      jumps += steps > 1;
      const std::vector<RequestId> decodes(b.decodes.begin(), b.decodes.end());
      const Progress& ahead = many.complete(steps);
      for (int64_t i = 0; i < steps; ++i) {
        const Batch& c = one.next_batch();
        REQUIRE(std::equal(decodes.begin(), decodes.end(), c.decodes.begin(), c.decodes.end()));
        const Progress& p = one.complete();
        REQUIRE(p.finished.size() == (i + 1 == steps ? ahead.finished.size() : 0));
      }
      REQUIRE(one.free_blocks() == many.free_blocks());
    }
    CHECK(one.next_batch().empty());
    CHECK(one.counters().preemptions == many.counters().preemptions);
    if (policy.result_delay == 0) CHECK(jumps > 0);
  }
}
