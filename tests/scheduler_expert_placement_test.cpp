#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <string>

#include "core/error.h"
#include "core/file.h"
#include "core/random.h"
#include "scheduler/expert_placement.h"

using namespace drydock::scheduler;
using drydock::core::Error;
using drydock::core::Random;

namespace {

const ExpertWeights kGolden = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86},
                               {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};

template <class Call>
std::string placement_error(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string cluster_error(const ExpertCluster& cluster) {
  return placement_error([&] { rebalance(kGolden, cluster); });
}

std::string histogram_error(std::string_view text) {
  return placement_error([&] { expert_histogram(drydock::core::parse_json(text, "h.json"), "h.json", 2, 3); });
}

// The GPU loads of one step, drawn as the header says: the top_k first arrivals of clocks of rate w, then a replica.
std::vector<double> draw_step(const std::vector<double>& weights, const LayerPlacement& placement, int gpus, int top_k,
                              int tokens, Random& random) {
  std::vector<std::vector<size_t>> slots(weights.size());
  for (size_t slot = 0; slot < placement.expert_of_slot.size(); ++slot)
    slots[static_cast<size_t>(placement.expert_of_slot[slot])].push_back(slot);
  const size_t per_gpu = placement.expert_of_slot.size() / static_cast<size_t>(gpus);
  std::vector<double> loads(static_cast<size_t>(gpus));
  std::vector<std::pair<double, size_t>> clocks(weights.size());
  for (int token = 0; token < tokens; ++token) {
    for (size_t i = 0; i < weights.size(); ++i) clocks[i] = {random.exponential(1 / weights[i]), i};
    std::nth_element(clocks.begin(), clocks.begin() + top_k - 1, clocks.end());
    for (int choice = 0; choice < top_k; ++choice) {
      const auto& own = slots[clocks[static_cast<size_t>(choice)].second];
      const auto replica = static_cast<size_t>(random.integer(0, static_cast<int64_t>(own.size()) - 1));
      ++loads[own[replica] / per_gpu];
    }
  }
  return loads;
}

struct Measured {
  double mean = 0, error = 0;  // of the busiest share, and its standard error
};

Measured measure(const std::vector<double>& weights, const LayerPlacement& placement, int gpus, int top_k, int tokens,
                 int steps) {
  Random random(7);
  double sum = 0, squares = 0;
  for (int step = 0; step < steps; ++step) {
    const double share = 1 + imbalance(draw_step(weights, placement, gpus, top_k, tokens, random));
    sum += share;
    squares += share * share;
  }
  const double mean = sum / steps;
  return {mean, std::sqrt((squares / steps - mean * mean) / steps)};
}

}  // namespace

TEST_CASE("EPLB reproduces its published example") {
  const auto placements = rebalance(kGolden, {16, 4, 2, 8});
  REQUIRE(placements.size() == 2);
  CHECK(placements[0].expert_of_slot == std::vector<int>{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1});
  CHECK(placements[1].expert_of_slot == std::vector<int>{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1});
  // The times each expert occurs in the lists above.
  CHECK(placements[0].replicas_of_expert == std::vector<int>{1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1});
  CHECK(placements[1].replicas_of_expert == std::vector<int>{1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1});
}

TEST_CASE("groups that nodes do not divide are ignored") {
  // 3 nodes do not divide 4 groups, so nodes and groups count for nothing.
  const auto global = rebalance(kGolden, {18, 4, 3, 6});
  const auto plain = rebalance(kGolden, {18, 1, 1, 6});
  for (size_t layer = 0; layer < 2; ++layer) CHECK(global[layer].expert_of_slot == plain[layer].expert_of_slot);
}

TEST_CASE("equal loads go to the lowest index and one slot a GPU keeps the order") {
  const ExpertWeights even = {{1, 1, 1, 1}};
  // Two packs of two, in turn: experts 0 and 2 on the first GPU.
  CHECK(rebalance(even, {4, 1, 1, 2})[0].expert_of_slot == std::vector<int>{0, 2, 1, 3});
  // The two extra replicas go to experts 0 and 1; with one slot a GPU, slots are in the order of their making.
  CHECK(rebalance(even, {6, 1, 1, 6})[0].expert_of_slot == std::vector<int>{0, 1, 2, 3, 0, 1});
}

TEST_CASE("every expert has a replica and the busiest GPU no more than before") {
  for (const double exponent : {0.0, 0.5, 1.0}) {
    const ExpertWeights weights = power_law(3, 64, exponent, 11);
    for (const auto& cluster : {ExpertCluster{64, 1, 1, 8}, ExpertCluster{72, 1, 1, 8}, ExpertCluster{80, 8, 2, 16}}) {
      const auto after = rebalance(weights, cluster);
      for (size_t layer = 0; layer < after.size(); ++layer) {
        std::vector<int> counts(64);
        for (const int expert : after[layer].expert_of_slot) ++counts[static_cast<size_t>(expert)];
        CHECK(counts == after[layer].replicas_of_expert);
        CHECK(*std::min_element(counts.begin(), counts.end()) >= 1);
        const auto before = contiguous_placement(64, cluster.gpus);
        const double then = imbalance(gpu_loads(weights[layer], before, cluster.gpus));
        if (cluster.groups == 1 && exponent > 0)
          CHECK(imbalance(gpu_loads(weights[layer], after[layer], cluster.gpus)) < then);
      }
    }
  }
}

TEST_CASE("GPU loads and their imbalance") {
  const std::vector<double> weights = {6, 1, 2, 3};
  const LayerPlacement before = contiguous_placement(4, 2);
  CHECK(gpu_loads(weights, before, 2) == std::vector<double>{7, 5});
  CHECK(imbalance(gpu_loads(weights, before, 2)) == doctest::Approx(1.0 / 6).epsilon(1e-12));  // 7 / 6 - 1
  // Six slots: expert 0 twice (3 each), then 0 again or 3, both 3 a replica: the lower index. Replicas of weight 3
  // (expert 3), 2, 2, 2 (expert 0), 2 (expert 2), 1 pack to 3 + 2 + 1 and 2 + 2 + 2.
  const auto after = rebalance({weights}, {6, 1, 1, 2});
  CHECK(after[0].replicas_of_expert == std::vector<int>{3, 1, 1, 1});
  CHECK(gpu_loads(weights, after[0], 2) == std::vector<double>{6, 6});
  CHECK(imbalance(std::vector<double>{0, 0}) == 0);
  CHECK(imbalance(std::span<const double>{}) == 0);
}

TEST_CASE("clusters that cannot be are refused in one line") {
  CHECK(cluster_error({8, 1, 1, 8}) == "experts: 8 replicas cannot hold 12 experts");
  CHECK(cluster_error({17, 1, 1, 8}) == "experts: 17 replicas do not spread evenly over 8 GPUs");
  CHECK(cluster_error({16, 5, 1, 8}) == "experts: 12 experts do not make 5 equal groups");
  CHECK(cluster_error({16, 4, 3, 8}) == "experts: 8 GPUs do not spread evenly over 3 nodes");
  CHECK(cluster_error({0, 1, 1, 1}) == "experts: replicas, groups, nodes and GPUs must be at least 1");
  CHECK(cluster_error({16, 4, 2, -8}) == "experts: replicas, groups, nodes and GPUs must be at least 1");
  CHECK_THROWS_AS(rebalance({}, {16, 4, 2, 8}), Error);
  CHECK_THROWS_AS(rebalance({{}}, {16, 4, 2, 8}), Error);
  CHECK_THROWS_AS(rebalance({{1, 2}, {1}}, {2, 1, 1, 2}), Error);
  CHECK_THROWS_AS(rebalance({{1, NAN}}, {2, 1, 1, 2}), Error);
  CHECK_THROWS_AS(rebalance({{1, -1}}, {2, 1, 1, 2}), Error);
  CHECK_THROWS_AS(contiguous_placement(12, 5), Error);
}

TEST_CASE("a power law deals the same weights to other experts in each layer") {
  const ExpertWeights weights = power_law(2, 8, 2, 3);
  CHECK(weights == power_law(2, 8, 2, 3));
  CHECK(weights != power_law(2, 8, 2, 4));
  CHECK(weights[0] != weights[1]);
  for (std::vector<double> row : weights) {
    std::sort(row.begin(), row.end(), std::greater<>());
    for (size_t rank = 1; rank <= row.size(); ++rank)
      CHECK(row[rank - 1] == doctest::Approx(1.0 / static_cast<double>(rank * rank)).epsilon(1e-12));
  }
  CHECK(power_law(1, 3, 0, 1)[0] == std::vector<double>{1, 1, 1});
  CHECK_THROWS_AS(power_law(0, 8, 1, 0), Error);
  CHECK_THROWS_AS(power_law(1, kMaxExperts + 1, 1, 0), Error);
  CHECK_THROWS_AS(power_law(1, 8, -1, 0), Error);
  CHECK_THROWS_AS(power_law(1, 8, NAN, 0), Error);
}

TEST_CASE("a histogram of expert use is read, one row for all layers or one each") {
  const auto read = [](std::string_view text) {
    return expert_histogram(drydock::core::parse_json(text, "h.json"), "h.json", 2, 3);
  };
  CHECK(read(R"({"layers": [[1, 2, 3], [4, 0, 6.5]]})") == ExpertWeights{{1, 2, 3}, {4, 0, 6.5}});
  CHECK(read(R"({"layers": [[1, 2, 3]]})") == ExpertWeights{{1, 2, 3}, {1, 2, 3}});
  const auto file = std::filesystem::temp_directory_path() / "drydock_expert_histogram_test.json";
  drydock::core::write_file(file, R"({"layers": [[1, 2]]})");
  CHECK(read_expert_histogram(file, 1, 2) == ExpertWeights{{1, 2}});
  CHECK(placement_error([&] { read_expert_histogram(file, 1, 3); }) ==
        file.string() + ": field 'layers[0]': want an array of 3 counts");
  std::filesystem::remove(file);
}

TEST_CASE("a bad histogram is refused with its field") {
  CHECK(histogram_error("[]") == "h.json: want a JSON object, found array");
  CHECK(histogram_error("{}") == "h.json: field 'layers': missing");
  CHECK(histogram_error(R"({"layers": []})") == "h.json: field 'layers': 0 rows; want 1 or 2");
  CHECK(histogram_error(R"({"layers": [[1,2,3],[1,2,3],[1,2,3]]})") == "h.json: field 'layers': 3 rows; want 1 or 2");
  CHECK(histogram_error(R"({"layers": [[1,2]]})") == "h.json: field 'layers[0]': want an array of 3 counts");
  CHECK(histogram_error(R"({"layers": [[1,2,3],7]})") == "h.json: field 'layers[1]': want an array of 3 counts");
  for (const char* bad : {"-1", "\"x\"", "null", "1e19", "[]", "true"})
    CHECK(histogram_error(std::string(R"({"layers": [[1,)") + bad + ",3]]}") ==
          "h.json: field 'layers[0][1]': want a count from 0 to 1e18");
  CHECK(histogram_error(R"({"layers": [[0,0,0]]})") == "h.json: field 'layers[0]': no count is above 0");
  CHECK(histogram_error(R"({"layers": [[1,2,3]], "x": 1})").find("h.json: ") == 0);
}

TEST_CASE("the busiest GPU's share where it is known exactly") {
  const std::vector<double> even(4, 1.0);
  const LayerPlacement two = contiguous_placement(4, 2);
  CHECK(expected_busiest_share(even, contiguous_placement(4, 1), 1, 2, 100) == 1);
  CHECK(expected_busiest_share(even, two, 2, 2, 0) == 1);
  CHECK(expected_busiest_share(even, two, 2, 4, 9) == doctest::Approx(1).epsilon(1e-9));  // every expert, every token
  // Two even halves of n tokens with one choice each: X ~ Binomial(n, 1/2), E max = n/2 + E|X - n/2|, which for n ->
  // inf is sqrt(n / (2 pi)), so the share is 1 + sqrt(2 / (pi n)). The binomial differs from the normal law by a
  // relative 1 / (4 n) of E|X - n/2| (Stirling); for n = 10000 quadrature adds 1e-6 at most.
  CHECK(expected_busiest_share(even, two, 2, 1, 10'000) ==
        doctest::Approx(1 + std::sqrt(2 / (M_PI * 10'000))).epsilon(2e-6));
  // Many tokens leave only the lasting imbalance: 7 / 6 for one choice with chances 6, 1, 2, 3 of 12.
  const std::vector<double> uneven = {6, 1, 2, 3};
  CHECK(expected_busiest_share(uneven, two, 2, 1, 100'000'000) == doctest::Approx(7.0 / 6).epsilon(0.05 / 100));
  CHECK_THROWS_WITH(expected_busiest_share(std::vector<double>{1, 0}, contiguous_placement(2, 2), 2, 2, 1),
                    "experts: fewer than top_k = 2 experts have weight");
  CHECK_THROWS_AS(expected_busiest_share(even, two, 2, 0, 1), Error);
  CHECK_THROWS_AS(expected_busiest_share(even, two, 2, 1, -1), Error);
}

TEST_CASE("the busiest GPU's share agrees with drawn steps") {
  struct Case {
    int experts, gpus, replicas, top_k, tokens, steps;
    double exponent;
  };
  const Case cases[] = {{64, 8, 64, 8, 1, 4000, 0},     {64, 8, 64, 8, 32, 2000, 0},
                        {64, 2, 64, 6, 100, 1000, 0.5}, {256, 32, 288, 8, 1, 2000, 0.5},
                        {256, 32, 288, 8, 64, 200, 1},  {256, 8, 256, 8, 512, 40, 1},
                        {128, 64, 128, 4, 4, 1000, 0},  {128, 16, 144, 8, 1024, 40, 0.7}};
  for (const Case& c : cases) {
    const std::vector<double> weights = power_law(1, c.experts, c.exponent, 5)[0];
    const LayerPlacement placement = c.replicas == c.experts ? contiguous_placement(c.experts, c.gpus)
                                                             : rebalance({weights}, {c.replicas, 1, 1, c.gpus})[0];
    const Measured drawn = measure(weights, placement, c.gpus, c.top_k, c.tokens, c.steps);
    const double got = expected_busiest_share(weights, placement, c.gpus, c.top_k, c.tokens);
    INFO(c.experts, " experts on ", c.gpus, " GPUs, ", c.tokens, " tokens: ", got, " against ", drawn.mean);
    // Four standard errors of the drawing, and 2 % of the excess over 1 for the formula: its approximations err by the
    // order of 1 / d, d near top_k, and with twenty times the steps the eight cases were 0.0 to 1.9 % off.
    CHECK(std::abs(got - drawn.mean) <= 4 * drawn.error + 0.02 * (got - 1));
  }
}

TEST_CASE("the online balancer moves towards EPLB a few copies a step") {
  BalancerConfig config;
  config.cluster = {6, 1, 1, 2};
  config.interval_steps = 2;
  config.moves_per_step = 1;
  config.bytes_per_expert = 10;
  OnlineBalancer balancer(config, 2, 4);
  // Even load: replicas of experts 0 and 1 are doubled (0.5 each); 1 (expert 2), 1 (expert 3), then 0.5s in turn.
  const std::vector<LayerPlacement> start = balancer.placements();
  CHECK(start[0].replicas_of_expert == std::vector<int>{2, 2, 1, 1});
  // Layer 0 is even already; layer 1 has all its load on expert 3.
  const std::vector<int64_t> tokens = {5, 5, 10, 10, 0, 0, 0, 30};
  CHECK(balancer.step(tokens).empty());
  CHECK(balancer.average().empty());
  int moves = 0;
  for (int i = 0; i < 20; ++i) {
    const auto now = balancer.step(tokens);
    REQUIRE(now.size() <= 1);
    CHECK(balancer.bytes(now) == 10.0 * static_cast<double>(now.size()));
    for (const ReplicaMove& move : now) CHECK(move.layer == 1);
    moves += static_cast<int>(now.size());
    for (const auto& placement : balancer.placements())
      for (int expert = 0; expert < 4; ++expert)
        CHECK(std::count(placement.expert_of_slot.begin(), placement.expert_of_slot.end(), expert) ==
              placement.replicas_of_expert[static_cast<size_t>(expert)]);
  }
  CHECK(moves >= 1);
  CHECK(balancer.moved_bytes() == 10.0 * moves);
  CHECK(balancer.average()[1] == std::vector<double>{0, 0, 0, 60});  // two steps of 30
  // EPLB gives expert 3 three replicas for its 60, of 20 each, of which one GPU gets two: 40 / 30 - 1. A layer that is
  // as even as EPLB would make it is left alone.
  CHECK(balancer.placements()[1].replicas_of_expert == std::vector<int>{1, 1, 1, 3});
  CHECK(imbalance(gpu_loads(balancer.average()[1], balancer.placements()[1], 2)) ==
        doctest::Approx(1.0 / 3).epsilon(1e-12));
  CHECK(balancer.placements()[0].expert_of_slot == start[0].expert_of_slot);
}

TEST_CASE("a layer changes only when its last copy is in, and what stays is not copied") {
  BalancerConfig config;
  config.cluster = {4, 1, 1, 2};
  config.interval_steps = 1;
  config.moves_per_step = 1;
  OnlineBalancer balancer(config, 1, 4);
  CHECK(balancer.placements()[0].expert_of_slot == std::vector<int>{0, 1, 2, 3});
  // 8 + 6 against 1 + 1. EPLB packs 8 + 1 (experts 0, 3) and 6 + 1 (experts 1, 2): expert 0 keeps slot 0 and expert 2
  // slot 2, so 3 goes to slot 1 and 1 to slot 3.
  const std::vector<int64_t> tokens = {8, 6, 1, 1};
  const auto first = balancer.step(tokens);
  REQUIRE(first.size() == 1);
  CHECK(first[0].slot == 1);
  CHECK(first[0].expert == 3);
  CHECK(balancer.placements()[0].expert_of_slot == std::vector<int>{0, 1, 2, 3});
  const auto second = balancer.step(tokens);
  REQUIRE(second.size() == 1);
  CHECK(second[0].slot == 3);
  CHECK(second[0].expert == 1);
  CHECK(balancer.placements()[0].expert_of_slot == std::vector<int>{0, 3, 2, 1});
  for (int i = 0; i < 5; ++i) CHECK(balancer.step(tokens).empty());
}

TEST_CASE("the moving average weighs the newest interval") {
  BalancerConfig config;
  config.cluster = {2, 1, 1, 2};
  config.interval_steps = 1;
  config.newest_weight = 0.25;
  OnlineBalancer balancer(config, 1, 2);
  balancer.step(std::vector<int64_t>{8, 0});
  balancer.step(std::vector<int64_t>{0, 8});
  CHECK(balancer.average()[0] == std::vector<double>{6, 2});  // 8 + (0 - 8) / 4, 0 + 8 / 4
  CHECK_THROWS_WITH(balancer.step(std::vector<int64_t>{1}), "experts: want token counts of 1 layers x 2 experts");
  config.newest_weight = 0;
  CHECK_THROWS_AS(OnlineBalancer(config, 1, 2), Error);
  config.newest_weight = 1;
  config.moves_per_step = 0;
  CHECK_THROWS_AS(OnlineBalancer(config, 1, 2), Error);
  CHECK_THROWS_AS(OnlineBalancer(BalancerConfig{}, 1, 2), Error);  // a cluster without GPUs to speak of
}
