#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "simulator/lengths.h"
#include "tests/moments.h"

using drydock::check_moments;
using drydock::moments;
using drydock::Moments;
using drydock::core::Error;
using drydock::core::Random;
using namespace drydock::simulator;
namespace fs = std::filesystem;

namespace {

std::vector<double> prompts_of(const LengthDistribution& lengths, int draws) {
  Random random(11);
  std::vector<double> tokens;
  for (int i = 0; i < draws; ++i) tokens.push_back(static_cast<double>(lengths.sample(random).prompt_tokens));
  return tokens;
}

std::string parse_error(std::string_view spec) {
  try {
    LengthDistribution::parse(spec, "--lengths");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("fixed and uniform lengths") {
  Random random(1);
  const auto fixed = LengthDistribution::parse("fixed:2000,500", "--lengths");
  CHECK(fixed.sample(random) == RequestLengths{2000, 500});
  const auto uniform = LengthDistribution::parse("uniform:1600-2000,400-500", "--lengths");
  CHECK(uniform.mean_prompt() == 1800);
  CHECK(uniform.mean_output() == 450);
  const auto prompts = prompts_of(uniform, 100'000);
  CHECK(*std::min_element(prompts.begin(), prompts.end()) == 1600);
  CHECK(*std::max_element(prompts.begin(), prompts.end()) == 2000);
  check_moments(prompts, {1800, (401.0 * 401 - 1) / 12}, 1.8);  // (n^2 - 1) / 12 of n values
  CHECK(LengthDistribution().sample(random) == RequestLengths{1, 1});
}

TEST_CASE("lognormal lengths have their mean and cv, and truncated ones the mean of what is left") {
  const auto wide = LengthDistribution::parse("lognormal:2000/0.5,500/0", "--lengths");
  CHECK(wide.mean_prompt() == doctest::Approx(2000));
  CHECK(wide.mean_output() == 500);
  // Rounding adds 1/12 to a variance of 10^6. Kurtosis 8.04: see core_random_test.
  check_moments(prompts_of(wide, 100'000), {2000, 1e6}, 8.04);
  // Mean 100, cv 1: s^2 = ln 2, m = ln 100 - s^2 / 2 = 4.2586; of the part below 100.5, y = (ln 100.5 - m) / s =
  // 0.4223, the mean is 100 N(y - s) / N(y) = 100 x 0.3408 / 0.6636 = 51.36, four digits being good for 0.02.
  const auto cut = LengthDistribution::parse("lognormal:100/1,100/1,100", "--lengths");
  CHECK(std::abs(cut.mean_prompt() - 51.36) < 0.02);
  const auto prompts = prompts_of(cut, 100'000);
  const Moments got = moments(prompts);
  CHECK(*std::max_element(prompts.begin(), prompts.end()) == 100);
  CHECK(*std::min_element(prompts.begin(), prompts.end()) >= 1);
  // Rounding shifts a mean by less than h^2 / 24 of the density's change over the range: far below 0.05.
  CHECK(std::abs(got.mean - cut.mean_prompt()) < 5 * std::sqrt(got.variance / 1e5) + 0.05);
}

TEST_CASE("empirical lengths are pairs of the file, each as often") {
  const fs::path file = fs::temp_directory_path() / ("drydock_lengths_" + std::to_string(::getpid()));
  std::ofstream(file) << "output_tokens,id,prompt_tokens\n10,a,100\n30,b,300\n";
  const auto lengths = LengthDistribution::parse("empirical:" + file.string(), "--lengths");
  CHECK(lengths.mean_prompt() == 200);
  CHECK(lengths.mean_output() == 20);
  Random random(1);
  for (int i = 0; i < 100; ++i) {
    const RequestLengths drawn = lengths.sample(random);
    REQUIRE(drawn.prompt_tokens == 10 * drawn.output_tokens);
  }
  check_moments(prompts_of(lengths, 10'000), {200, 100 * 100}, 1.01);  // two values: kurtosis 1, so almost exact
  std::ofstream(file) << "output_tokens,prompt_tokens\n1,\n";
  CHECK(parse_error("empirical:" + file.string()) == file.string() + ": line 2: an empty length; want tokens");
  std::ofstream(file) << "output_tokens,prompt_tokens\n";
  CHECK(parse_error("empirical:" + file.string()) == file.string() + ": no rows; want at least one pair of lengths");
  std::ofstream(file) << "output_tokens\n1\n";
  CHECK(parse_error("empirical:" + file.string()) == file.string() + ": line 1: missing column prompt_tokens");
  fs::remove(file);
  CHECK_THROWS_WITH_AS(LengthDistribution::empirical({}), "empirical lengths: no pairs; want at least one", Error);
  CHECK_THROWS_WITH_AS(LengthDistribution::empirical({{1, 0}}),
                       "empirical lengths: want tokens from 1 to 10000000, found 0", Error);
}

TEST_CASE("texts that are no distribution are refused") {
  for (const std::string spec : {"", "fixed", "fixed:", "fixed:1", "fixed:1,2,3", "fixed:1.5,2", "uniform:1,2",
                                 "lognormal:10,20", "lognormal:10/1,20/1,x", "normal:1,2", "empirical:"})
    CHECK(parse_error(spec) == "--lengths: '" + spec +
                                   "' is no distribution of lengths; want fixed:2000,500 or uniform:1600-2000,400-500 "
                                   "or lognormal:2000/0.8,500/1.2 or empirical:file.csv");
  CHECK(parse_error("fixed:0,5") == "--lengths: prompt tokens: want a length or low-high from 1 to 10000000, found 0");
  CHECK(parse_error("uniform:1-2,9-8") ==
        "--lengths: output tokens: want a length or low-high from 1 to 10000000, found 9-8");
  CHECK(parse_error("lognormal:0.5/1,2/1") == "--lengths: prompt tokens: want a mean from 1 to 1000000, found 0.5");
  CHECK(parse_error("lognormal:5/1,2/nan") == "--lengths: output tokens: want a cv from 0 to 10, found nan");
  CHECK(parse_error("lognormal:5/1,2/1,99999999") ==
        "--lengths: longest prompt: want 1 to 10000000 tokens, found 99999999");
}
