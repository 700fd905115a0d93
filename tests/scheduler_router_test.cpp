#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "core/error.h"
#include "scheduler/router.h"

using namespace drydock::scheduler;

namespace {

RouterConfig config_of(RouterPolicy policy) {
  RouterConfig config;
  config.policy = policy;
  return config;
}

}  // namespace

TEST_CASE("router policies are known by name") {
  CHECK(name(RouterConfig{}.policy) == "least_outstanding_tokens");
  for (const auto policy : {RouterPolicy::round_robin, RouterPolicy::least_outstanding_tokens,
                            RouterPolicy::power_of_two, RouterPolicy::kv_aware})
    CHECK(parse_router_policy(name(policy)) == policy);
  CHECK_FALSE(parse_router_policy("random"));
  CHECK_FALSE(parse_router_policy(""));
}

TEST_CASE("round robin takes turns and passes over workers that may not get work") {
  Router router(config_of(RouterPolicy::round_robin), 3);
  for (const int want : {0, 1, 2, 0}) CHECK(router.route(10, {}, 0) == want);
  router.drain(1);
  for (const int want : {2, 0, 2}) CHECK(router.route(10, {}, 0) == want);
  CHECK(router.add_worker() == 3);
  for (const int want : {3, 0, 2, 3}) CHECK(router.route(10, {}, 0) == want);
}

TEST_CASE("least outstanding tokens follows requests through their life") {
  Router router(RouterConfig{}, 2);
  CHECK(router.route(100, {}, 0) == 0);  // a tie
  router.started(0, 100, 40);
  CHECK(router.load(0).prefill_tokens == 60);
  CHECK(router.load(0).context_tokens == 100);
  CHECK(router.route(10, {}, 0) == 1);
  router.started(1, 90, 0);
  CHECK(router.route(10, {}, 0) == 1);  // 100 against 90
  router.first_token(1, 90, 0);
  router.progress(1, 11);  // 100 against 101
  CHECK(router.route(10, {}, 0) == 0);
  router.finished(1, 90, 11);
  CHECK(router.load(1).context_tokens == 0);
  CHECK(router.load(1).requests == 0);
  CHECK(router.load(1).prefill_tokens == 0);
  router.abandoned(0, 100, 40);
  CHECK(router.load(0).prefill_tokens == 0);
  CHECK(router.load(0).context_tokens == 0);
  CHECK(router.load(0).requests == 0);
}

TEST_CASE("kv-aware routing weighs cached prompts against load") {
  RouterConfig config = config_of(RouterPolicy::kv_aware);
  config.block_tokens = 1;
  Router router(config, 3);
  // Idle workers: cost = (prompt - overlap) + prompt, so the largest overlap wins.
  const int64_t overlap[] = {0, 64, 32};
  CHECK(router.route(100, overlap, 0) == 1);
  CHECK(router.route(100, {}, 0) == 0);  // no overlap known: a tie
  // Worker 1 takes a request of 50 of which 20 are cached: costs become 200, (30 + 36) + (50 + 100) = 216, 168.
  router.started(1, 50, 20);
  CHECK(router.route(100, overlap, 0) == 2);
  // After the prefill of worker 1: 36 + 150 = 186; with 20 tokens generated 206, more than worker 0's 200.
  router.drain(2);
  router.first_token(1, 50, 20);
  CHECK(router.route(100, overlap, 0) == 1);
  router.progress(1, 20);
  CHECK(router.route(100, overlap, 0) == 0);
  const int64_t shorter[] = {0};
  CHECK(router.route(100, shorter, 0) == 0);
}

TEST_CASE("the kv-aware cost has its scales") {
  RouterConfig config = config_of(RouterPolicy::kv_aware);
  config.block_tokens = 10;
  config.request_weight = 3;
  Router router(config, 2);
  // Worker 0: one request of 20; worker 1: two of 5, all past prefill. For a prompt of 10:
  // 10/10 + 30/10 + 3 = 7 against 10/10 + 20/10 + 6 = 9.
  router.started(0, 20, 20);
  router.started(1, 5, 5);
  router.started(1, 5, 5);
  CHECK(router.route(10, {}, 0) == 0);
  config.request_weight = 0;  // 4 against 3
  Router light(config, 2);
  light.started(0, 20, 20);
  light.started(1, 5, 5);
  light.started(1, 5, 5);
  CHECK(light.route(10, {}, 0) == 1);
  config.prefill_load_scale = 0;  // the cache counts for nothing: 1 against 1, a tie
  const int64_t overlap[] = {0, 10};
  CHECK(Router(config, 2).route(10, overlap, 0) == 0);
}

TEST_CASE("a temperature samples by the softmax of the cost") {
  RouterConfig config = config_of(RouterPolicy::kv_aware);
  config.block_tokens = 1;
  config.temperature = 10;
  Router router(config, 3);
  router.started(1, 5, 5);
  router.started(2, 20, 20);
  const int draws = 40'000;
  int counts[3] = {};
  for (int i = 0; i < draws; ++i) ++counts[router.route(8, {}, 0)];
  // exp(-{0, 5, 20} / 10), normalized. A share's standard deviation is at most 0.5 / sqrt(draws) = 0.0025; four of it.
  const double weights[] = {1, std::exp(-0.5), std::exp(-2.0)};
  const double sum = weights[0] + weights[1] + weights[2];
  for (int i = 0; i < 3; ++i) CHECK(std::abs(counts[i] / double(draws) - weights[i] / sum) < 0.01);
}

TEST_CASE("power of two prefers the lighter of two different workers") {
  Router router(config_of(RouterPolicy::power_of_two), 4);
  for (int worker = 0; worker < 4; ++worker) router.started(worker, worker + 1, 0);
  const int draws = 12'000;
  int counts[4] = {};
  for (int i = 0; i < draws; ++i) ++counts[router.route(1, {}, 0)];
  // Of the 6 pairs worker 0 wins 3, worker 1 wins 2, worker 2 wins 1 and the heaviest none. Four standard deviations of
  // a share are at most 4 x 0.5 / sqrt(12000) = 0.0183.
  for (int i = 0; i < 4; ++i) CHECK(std::abs(counts[i] / double(draws) - (3 - i) / 6.0) < 0.0183);
  CHECK(counts[3] == 0);
  for (int worker = 0; worker < 3; ++worker) router.drain(worker);
  CHECK(router.route(1, {}, 0) == 3);
}

TEST_CASE("dead, draining, inhibited and removed workers get nothing") {
  for (const auto policy : {RouterPolicy::round_robin, RouterPolicy::least_outstanding_tokens,
                            RouterPolicy::power_of_two, RouterPolicy::kv_aware}) {
    Router router(config_of(policy), 2);
    router.inhibit(0, kInhibitUs);
    router.inhibit(0, 1);  // does not shorten it
    router.set_alive(1, false);
    CHECK(router.route(1, {}, kInhibitUs - 1) == -1);
    CHECK(router.route(1, {}, kInhibitUs) == 0);
    router.set_alive(1, true);
    CHECK(router.route(1, {}, 0) == 1);
    router.started(1, 7, 0);
    router.drain(1);
    CHECK_FALSE(router.drained(1));
    CHECK(router.route(1, {}, 0) == -1);
    router.first_token(1, 7, 0);
    router.finished(1, 7, 0);
    CHECK(router.drained(1));
    router.remove(0);
    CHECK(router.route(1, {}, 2 * kInhibitUs) == -1);
    router.finished(0, 100, 5);  // late news of a removed worker
    router.progress(0, 5);
    CHECK(router.load(0).context_tokens == 0);
    CHECK(router.load(0).requests == 0);
    CHECK(router.add_worker() == 2);
    CHECK(router.route(1, {}, 0) == 2);
    CHECK(Router(config_of(policy), 0).route(1, {}, 0) == -1);
  }
}

TEST_CASE("a bad router is refused in one line") {
  Router router(RouterConfig{}, 2);
  CHECK_THROWS_WITH(router.drain(2), "router: no worker 2; there are 2");
  CHECK_THROWS_WITH(router.load(-1), "router: no worker -1; there are 2");
  RouterConfig config;
  config.temperature = NAN;
  CHECK_THROWS_WITH(Router(config, 1), "router: temperature must be finite and not negative");
  config = {};
  config.block_tokens = 0;
  CHECK_THROWS_AS(Router(config, 1), drydock::core::Error);
  CHECK_THROWS_AS(Router(RouterConfig{}, -1), drydock::core::Error);
}

TEST_CASE("a migrated request replays what it has streamed") {
  const Migration twice{2};
  const auto once = migrate(twice, {100, 30, 70, 0});
  REQUIRE(once);
  CHECK(once->prompt_tokens == 130);
  CHECK(once->generated_tokens == 0);
  CHECK(once->output_tokens_left == 70);
  CHECK(once->migrations == 1);
  const auto again = migrate(twice, {130, 20, 50, 1});
  REQUIRE(again);
  CHECK(again->prompt_tokens == 150);
  CHECK_FALSE(migrate(twice, *again));
  CHECK_FALSE(migrate(Migration{}, {100, 30, 70, 0}));
  CHECK_FALSE(migrate(twice, {100, 30, 0, 0}));
}

TEST_CASE("a request goes to the least loaded attention-data-parallel rank") {
  const int64_t tokens[] = {50, 20, 20, 90}, sequences[] = {1, 3, 2, 1};
  CHECK(least_loaded_rank(tokens, sequences) == 2);  // as few tokens as rank 1, fewer sequences
  CHECK(least_loaded_rank(tokens, sequences, 2) == 0);
  CHECK(least_loaded_rank(tokens, sequences, 1) == -1);
  CHECK(least_loaded_rank({}, {}) == -1);
}

TEST_CASE("imbalance is what the busiest has over the mean") {
  const int64_t uneven[] = {2, 2, 8}, even[] = {5, 5}, idle[] = {0, 0};
  CHECK(imbalance(std::span<const int64_t>(uneven)) == doctest::Approx(1).epsilon(1e-12));  // 8 / 4 - 1
  CHECK(imbalance(std::span<const int64_t>(even)) == 0);
  CHECK(imbalance(std::span<const int64_t>(idle)) == 0);
  CHECK(imbalance(std::span<const int64_t>()) == 0);
}
