#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "simulator/arrivals.h"
#include "tests/moments.h"

using drydock::check_moments;
using drydock::core::Error;
using namespace drydock::simulator;

namespace {

struct Drawn {
  double at_us;
  int64_t prompt_tokens, output_tokens, tag;
  std::vector<uint64_t> hashes;
  bool warmup;
  bool operator==(const Drawn&) const = default;
};

Drawn take(Load& load) {
  const Arrival a = load.take();
  return {a.at_us, a.prompt_tokens, a.output_tokens, a.tag, {a.hashes.begin(), a.hashes.end()}, a.warmup};
}

// To the end, each request answered `answer_us` after it came.
std::vector<Drawn> drain(Load& load, double answer_us) {
  std::vector<Drawn> seen;
  std::multimap<double, int64_t> running;
  while (!load.done() || !running.empty()) {
    if (!running.empty() && running.begin()->first <= load.next_us()) {
      load.finished(running.begin()->second, running.begin()->first);
      running.erase(running.begin());
      continue;
    }
    seen.push_back(take(load));
    running.emplace(seen.back().at_us + answer_us, seen.back().tag);
  }
  return seen;
}

std::vector<double> gaps_of(const std::vector<Drawn>& seen) {
  std::vector<double> gaps;
  for (size_t i = 1; i < seen.size(); ++i) gaps.push_back(seen[i].at_us - seen[i - 1].at_us);
  return gaps;
}

OpenOptions open_of(double per_s, int64_t requests) {
  OpenOptions options;
  options.rate.per_s = per_s;
  options.requests = requests;
  return options;
}

// How many hashes two requests have in common from the start.
size_t common(const Drawn& a, const Drawn& b) {
  size_t n = 0;
  while (n < a.hashes.size() && n < b.hashes.size() && a.hashes[n] == b.hashes[n]) ++n;
  return n;
}

}  // namespace

TEST_CASE("gaps of an open load: exponential, gamma of cv^2 = 1 / burstiness, or even") {
  OpenOptions options = open_of(50, 100'000);  // a gap of 20,000 us on average
  for (const double burstiness : {1.0, 0.25, 4.0}) {
    options.burstiness = burstiness;
    const auto seen = drain(*make_open_load(options), 0);
    REQUIRE(seen.size() == 100'000);
    check_moments(gaps_of(seen), {2e4, 4e8 / burstiness}, 3 + 6 / burstiness);
  }
  options.burstiness = kNever;
  for (const double gap : gaps_of(drain(*make_open_load(options), 0))) REQUIRE(gap == doctest::Approx(2e4));
}

TEST_CASE("counts of a Poisson load in each second are Poisson") {
  OpenOptions options = open_of(50, 0);
  options.requests.reset();
  options.duration_us = 2000e6;
  std::vector<double> counts(2000);
  for (const Drawn& seen : drain(*make_open_load(options), 0)) ++counts[static_cast<size_t>(seen.at_us / 1e6)];
  check_moments(counts, {50, 50}, 3.02);  // kurtosis 3 + 1 / 50
}

TEST_CASE("the expected count is the integral of the rate, and time_of its inverse") {
  RateProfile ramp{RateProfile::Kind::ramp, 10, 30, 20};
  RateProfile down{RateProfile::Kind::ramp, 30, 10, 20};
  RateProfile day{RateProfile::Kind::diurnal, 10, 0, 0, 1, 40};
  CHECK(ramp.expected(20) == doctest::Approx(400));  // a mean of 20 a second
  CHECK(ramp.expected(30) == doctest::Approx(700));
  CHECK(down.expected(10) == doctest::Approx(250));  // from 30 to 20
  CHECK(day.expected(40) == doctest::Approx(400));
  CHECK(day.expected(20) == doctest::Approx(200 + 10 * 40 / 3.14159265358979));  // half a sine: amplitude period / pi
  for (const RateProfile& profile : {ramp, down, day, RateProfile{}}) {
    double sum = 0;
    for (int i = 0; i < 50'000; ++i) sum += profile.rate(1e-3 * (i + 0.5)) * 1e-3;
    CHECK(sum == doctest::Approx(profile.expected(50)).epsilon(1e-6));  // midpoint rule: h^2 / 24 times curvature
    for (double t = 0; t < 100; t += 0.37)
      // Where the rate is 0 a time is no better known than to the cube root of the count's 1e-13.
      REQUIRE(std::abs(profile.time_of(profile.expected(t)) - t) < (profile.rate(t) > 0.1 ? 1e-9 : 1e-2));
  }
  RateProfile ends{RateProfile::Kind::ramp, 100, 0, 10};
  CHECK(ends.time_of(500) == doctest::Approx(10));
  CHECK(ends.time_of(500.1) == kNever);
  CHECK(RateProfile{RateProfile::Kind::ramp, 0, 10, 10}.time_of(50) == doctest::Approx(10));
}

TEST_CASE("loads of changing rate bring in each second what is expected") {
  OpenOptions options;
  options.duration_us = 100e6;
  for (const RateProfile& profile :
       {RateProfile{RateProfile::Kind::ramp, 100, 500, 60}, RateProfile{RateProfile::Kind::ramp, 500, 0, 60},
        RateProfile{RateProfile::Kind::diurnal, 300, 0, 0, 0.8, 50}}) {
    options.rate = profile;
    std::vector<double> counts(100);
    for (const Drawn& seen : drain(*make_open_load(options), 0)) ++counts[static_cast<size_t>(seen.at_us / 1e6)];
    for (int s = 0; s < 100; ++s) {
      const double want = profile.expected(s + 1) - profile.expected(s);
      REQUIRE(std::abs(counts[static_cast<size_t>(s)] - want) <= 5 * std::sqrt(want) + 1e-9);  // Poisson
    }
  }
}

TEST_CASE("a closed loop keeps to its concurrency, warms up first and starts anew") {
  ClosedLoopOptions options;
  options.concurrency = 3;
  options.gap_us = 10;
  const auto load = make_closed_loop(options);
  // Warm-up: 6 requests, three at a time, each answered after 100 us: at 0 and, a gap later, at 110. All are answered
  // at 210; measured ones start then, and every 110 us three of them: 30 in ten rounds.
  const auto seen = drain(*load, 100);
  REQUIRE(seen.size() == 36);
  for (size_t i = 0; i < seen.size(); ++i) {
    const auto round = static_cast<double>(i / 3);
    REQUIRE(seen[i].warmup == (i < 6));
    REQUIRE(seen[i].at_us == (i < 6 ? 110 * round : 210 + 110 * (round - 2)));
  }
  CHECK(load->done());
}

TEST_CASE("a closed loop waits for answers") {
  ClosedLoopOptions options;
  options.concurrency = 2;
  options.prompts = 3;
  options.warmup = 1;
  options.ramp_us = 100;
  const auto load = make_closed_loop(options);
  const Drawn warmup = take(*load);
  CHECK(warmup.warmup);
  CHECK(load->next_us() == kNever);
  CHECK_FALSE(load->done());
  load->finished(warmup.tag, 1000);
  const Drawn first = take(*load), second = take(*load);
  CHECK(first.at_us == 1000);
  CHECK(second.at_us == 1050);  // two spread over 100 us
  CHECK(load->next_us() == kNever);
  load->finished(second.tag, 1400);
  CHECK(load->next_us() == 1400);
  take(*load);
  CHECK(load->done());
  load->finished(first.tag, 1500);
  CHECK(load->next_us() == kNever);
}

TEST_CASE("a client with few connections has the others wait, in order, and says how long") {
  ClosedLoopOptions options;
  options.concurrency = 4;
  options.connections = 2;
  options.prompts = 6;
  options.warmup = 0;
  options.gap_us = 10;
  const auto load = make_closed_loop(options);
  const Arrival first = load->take(), second = load->take();
  CHECK(first.waited_us == 0);
  CHECK(second.waited_us == 0);
  CHECK(load->next_us() == kNever);  // two more users, and no connection
  load->finished(first.tag, 700);
  CHECK(load->next_us() == 700);
  CHECK(load->take().waited_us == 700);
  CHECK(load->next_us() == kNever);
  load->finished(second.tag, 900);
  const Arrival fourth = load->take();
  CHECK(fourth.at_us == 900);
  CHECK(fourth.waited_us == 900);
  load->finished(fourth.tag, 1000);
  const Arrival fifth = load->take();  // of the first user, who asked again at 710
  CHECK(fifth.at_us == 1000);
  CHECK(fifth.waited_us == 290);
  load->finished(2, 1001);
  const Arrival last = load->take();  // of the second, who asked at 910
  CHECK(last.at_us == 1001);
  CHECK(last.waited_us == 91);
  CHECK(load->done());
}

TEST_CASE("uniform gaps of a closed loop have the mean asked for") {
  ClosedLoopOptions options;
  options.gap_us = 1000;
  options.uniform_gap = true;
  options.prompts = 100'000;
  options.warmup = 0;
  check_moments(gaps_of(drain(*make_closed_loop(options), 0)), {1000, 2000.0 * 2000 / 12}, 1.8);
}

TEST_CASE("prompts share blocks to the share asked for") {
  OpenOptions options = open_of(1, 20'000);
  options.lengths = LengthDistribution::fixed(1000, 10);
  options.prefix = {0.3, 64};
  const auto load = make_open_load(options);
  CHECK(load->hash_tokens() == 64);
  const auto seen = drain(*load, 0);
  // 300 tokens are 4.6875 blocks: 4 or 5. Against a request with 5, each shares what it has itself.
  const auto full = std::find_if(seen.begin() + 1, seen.end(), [&](const Drawn& s) { return common(s, seen[0]) == 5; });
  REQUIRE(full != seen.end());
  std::vector<double> shared;
  for (const Drawn& s : seen) {
    REQUIRE(s.hashes.size() == 16);  // ceil(1000 / 64)
    if (&s != &*full) shared.push_back(static_cast<double>(common(s, *full)));
  }
  // One of two values, with p = 0.6875: variance p (1 - p), kurtosis 1 / (p (1 - p)) - 3 = 1.65.
  check_moments(shared, {4.6875, 0.6875 * 0.3125}, 1.65);
}

TEST_CASE("a conversation says again all that was said before") {
  SessionOptions options;
  options.sessions = 300;
  options.mean_turns = 4;
  options.mean_think_us = 5e6;
  options.lengths = LengthDistribution::uniform({10, 90}, {20, 60});
  options.system_tokens = 100;
  options.hash_tokens = 16;
  const auto load = make_sessions(options);
  // Endless answers keep tags apart until a session is over; so follow sessions by their seventh block, their first
  // own one: 100 tokens of system prompt are six whole blocks of 16.
  std::map<uint64_t, std::vector<Drawn>> sessions;
  for (const Drawn& seen : drain(*load, 1e6)) sessions[seen.hashes[6]].push_back(seen);
  REQUIRE(sessions.size() == 300);
  const Drawn& anyone = sessions.begin()->second[0];
  for (const auto& [block, turns] : sessions) {
    REQUIRE(common(turns[0], anyone) >= 6);
    REQUIRE((&turns[0] == &anyone || common(turns[0], anyone) == 6));
    for (size_t k = 0; k < turns.size(); ++k) {
      const int64_t said = k == 0 ? 100 : turns[k - 1].prompt_tokens + turns[k - 1].output_tokens;
      const int64_t added = turns[k].prompt_tokens - said;
      REQUIRE((added >= 10 && added <= 90));
      REQUIRE(turns[k].hashes.size() ==
              static_cast<size_t>((turns[k].prompt_tokens + turns[k].output_tokens + 15) / 16));
      if (k > 0) REQUIRE(common(turns[k], turns[k - 1]) == static_cast<size_t>(said / 16));
      if (k > 0) REQUIRE(turns[k].at_us >= turns[k - 1].at_us + 1e6);
    }
  }
}

TEST_CASE("turns are geometric, think times exponential, starts Poisson") {
  SessionOptions options;
  options.sessions = 50'000;
  options.sessions_per_s = 20;
  options.mean_turns = 5;
  options.mean_think_us = 3e6;
  const auto load = make_sessions(options);
  std::map<int64_t, std::pair<double, double>> open;  // by tag: turns and time of the last answer
  std::vector<double> turns, thinks, starts;
  const auto close = [&](int64_t tag) {
    turns.push_back(open[tag].first);
    open.erase(tag);
  };
  while (!load->done()) {
    const Drawn seen = take(*load);
    const bool goes_on = open.contains(seen.tag) && seen.prompt_tokens > 1;
    if (goes_on) thinks.push_back(seen.at_us - open[seen.tag].second);
    if (!goes_on && open.contains(seen.tag)) close(seen.tag);
    if (!goes_on) starts.push_back(seen.at_us);
    open[seen.tag].first += 1;
    open[seen.tag].second = seen.at_us;
    load->finished(seen.tag, seen.at_us);
  }
  while (!open.empty()) close(open.begin()->first);
  REQUIRE(turns.size() == 50'000);
  // Geometric with p = 1/5: variance (1 - p) / p^2 = 20, kurtosis 9 + p^2 / (1 - p) = 9.05.
  check_moments(turns, {5, 20}, 9.05);
  check_moments(thinks, {3e6, 9e12}, 9);
  std::vector<double> gaps;
  for (size_t i = 1; i < starts.size(); ++i) gaps.push_back(starts[i] - starts[i - 1]);
  check_moments(gaps, {5e4, 25e8}, 9);
}

TEST_CASE("a conversation ends before it is longer than allowed") {
  SessionOptions options;
  options.mean_turns = 1e6;
  options.lengths = LengthDistribution::fixed(60, 40);
  options.system_tokens = 50;
  options.most_tokens = 450;  // 50 + 100 k: four turns
  CHECK(drain(*make_sessions(options), 0).size() == 4);
  options.most_tokens = 10;  // the first is made all the same
  CHECK(drain(*make_sessions(options), 0).size() == 1);
}

TEST_CASE("what a session says does not depend on when it is answered") {
  SessionOptions options;
  options.sessions = 50;
  options.mean_turns = 3;
  options.lengths = LengthDistribution::uniform({1, 1000}, {1, 1000});
  std::map<uint64_t, int64_t> slow, fast;  // tokens of all turns by the session's first block
  options.hash_tokens = 1;
  for (const Drawn& seen : drain(*make_sessions(options), 1e7)) slow[seen.hashes[0]] += seen.prompt_tokens;
  for (const Drawn& seen : drain(*make_sessions(options), 10)) fast[seen.hashes[0]] += seen.prompt_tokens;
  CHECK(slow == fast);
}

TEST_CASE("the same seed gives the same requests, another one others") {
  const auto lengths = LengthDistribution::parse("lognormal:200/1,50/1", "--lengths");
  const auto run = [&](uint64_t seed) {
    OpenOptions open = open_of(5, 200);
    ClosedLoopOptions closed;
    SessionOptions sessions;
    open.lengths = closed.lengths = sessions.lengths = lengths;
    open.seed = closed.seed = sessions.seed = seed;
    open.prefix = closed.prefix = {0.5, 16};
    closed.uniform_gap = true;
    closed.gap_us = 5;
    sessions.sessions = 20;
    sessions.mean_turns = 3;
    std::vector<Drawn> all = drain(*make_open_load(open), 1e5);
    for (const Drawn& seen : drain(*make_closed_loop(closed), 1e5)) all.push_back(seen);
    for (const Drawn& seen : drain(*make_sessions(sessions), 1e5)) all.push_back(seen);
    return all;
  };
  CHECK(run(1) == run(1));
  CHECK(run(1) != run(2));
}

TEST_CASE("options that make no sense are refused by name") {
  ClosedLoopOptions closed;
  closed.concurrency = 0;
  CHECK_THROWS_WITH_AS(make_closed_loop(closed), "concurrency: want 1 to 10000000, found 0", Error);
  closed.concurrency = 1;
  closed.gap_us = NAN;
  CHECK_THROWS_WITH_AS(make_closed_loop(closed), "gap in us: want 0 to 1e+15, found nan", Error);
  closed.gap_us = 0;
  closed.prefix = {0.5, 0};
  CHECK_THROWS_WITH_AS(make_closed_loop(closed), "share of a common prefix: want hash tokens above 0 with it", Error);
  OpenOptions open;
  CHECK_THROWS_WITH_AS(make_open_load(open), "open load: without an end; want a number of requests or a duration",
                       Error);
  open = open_of(0, 5);
  CHECK_THROWS_WITH_AS(make_open_load(open), "request rate per second: want 1e-09 to 1000000000, found 0", Error);
  open = open_of(1, 5);
  open.burstiness = 0;
  CHECK_THROWS_WITH_AS(make_open_load(open), "burstiness: want 0.001 to 1000000000, found 0", Error);
  open.burstiness = 1;
  open.rate = {RateProfile::Kind::diurnal, 1, 0, 0, 1.5, 1};
  CHECK_THROWS_WITH_AS(make_open_load(open), "amplitude of the rate: want 0 to 1, found 1.5", Error);
  SessionOptions sessions;
  sessions.mean_turns = 0.5;
  CHECK_THROWS_WITH_AS(make_sessions(sessions), "mean turns: want 1 to 1000000, found 0.5", Error);
}
