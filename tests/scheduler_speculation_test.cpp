#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "core/error.h"
#include "scheduler/speculation.h"

using namespace drydock::scheduler;

namespace {

std::string speculation_error(std::string_view text) {
  try {
    parse_speculation(text);
  } catch (const drydock::core::Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a chain with one acceptance rate follows the closed form") {
  for (const double p : {0.0, 0.3, 0.8, 0.99}) {
    for (const int k : {1, 3, 7}) {
      const Speculation chain{DraftMethod::draft, std::vector<double>(static_cast<size_t>(k), p)};
      // At most 8 terms of at most 1: each rounds to 2^-53, and the closed form's 1 / (1 - p) enlarges by up to 100.
      CHECK(chain.expected_tokens() == doctest::Approx((1 - std::pow(p, k + 1)) / (1 - p)).epsilon(1e-12));
    }
  }
  CHECK(Speculation{DraftMethod::mtp, {1, 1, 1}}.expected_tokens() == 4);  // all accepted
  CHECK(Speculation{}.expected_tokens() == 1);                             // no drafts
}

TEST_CASE("a chain with a rate for each position multiplies along the chain") {
  // 1 + 0.9 + 0.9 x 0.8 + 0.9 x 0.8 x 0.5 = 1 + 0.9 + 0.72 + 0.36
  const Speculation chain{DraftMethod::eagle, {0.9, 0.8, 0.5}};
  CHECK(chain.expected_tokens() == doctest::Approx(2.98).epsilon(1e-12));
}

TEST_CASE("a uniform number gives accepted drafts with the mean the chain expects") {
  const Speculation chain{DraftMethod::draft, {0.9, 0.8, 0.5}};
  CHECK(chain.accepted(0.0) == 3);
  CHECK(chain.accepted(0.35) == 3);  // P(3) = 0.36
  CHECK(chain.accepted(0.37) == 2);  // P(>= 2) = 0.72
  CHECK(chain.accepted(0.71) == 2);
  CHECK(chain.accepted(0.73) == 1);
  CHECK(chain.accepted(0.91) == 0);
  const int points = 100'000;
  double sum = 0;
  for (int i = 0; i < points; ++i) sum += 1 + chain.accepted((i + 0.5) / points);
  // The midpoint rule misplaces each of the three steps by at most half a point.
  CHECK(std::abs(sum / points - chain.expected_tokens()) <= 1.5 / points + 1e-12);
}

TEST_CASE("a tree adds the product along each path") {
  // Two children of the root, 0.6 and 0.3; under the first 0.5 and 0.2; under that 0.5 again 0.4:
  // 1 + 0.6 + 0.3 + 0.6 x 0.5 + 0.6 x 0.2 + 0.6 x 0.5 x 0.4 = 1 + 0.9 + 0.3 + 0.12 + 0.12
  const DraftNode tree[] = {{-1, 0.6}, {-1, 0.3}, {0, 0.5}, {0, 0.2}, {2, 0.4}};
  CHECK(expected_tokens(tree) == doctest::Approx(2.44).epsilon(1e-12));
  const DraftNode chain[] = {{-1, 0.9}, {0, 0.8}, {1, 0.5}};
  CHECK(expected_tokens(chain) == Speculation{DraftMethod::draft, {0.9, 0.8, 0.5}}.expected_tokens());
  CHECK(expected_tokens(std::span<const DraftNode>{}) == 1);
  const DraftNode cycle[] = {{0, 0.5}};
  CHECK_THROWS_WITH(expected_tokens(cycle), "draft tree: node 0 has parent 0; want -1 or an earlier node");
  const DraftNode wild[] = {{-1, 1.5}};
  CHECK_THROWS_WITH(expected_tokens(wild), "draft tree: node 0: acceptance must be from 0 to 1");
}

TEST_CASE("speedup is tokens a step over the longer step") {
  CHECK(speedup(2.4, 10, 11, 1) == 2);  // 2.4 x 10 / 12
  CHECK_THROWS_AS(speedup(2, 10, 0, 0), drydock::core::Error);
  CHECK_THROWS_AS(speedup(2, -1, 1, 0), drydock::core::Error);
}

TEST_CASE("speculation is read from one word") {
  const Speculation mtp = parse_speculation("mtp:k=3,p=0.8");
  CHECK(mtp.method == DraftMethod::mtp);
  CHECK(mtp.acceptance == std::vector<double>{0.8, 0.8, 0.8});
  const Speculation plain = parse_speculation("p=0.9/0.8/0.6,k=3");
  CHECK(plain.method == DraftMethod::draft);
  CHECK(plain.acceptance == std::vector<double>{0.9, 0.8, 0.6});
  for (const auto method : {DraftMethod::draft, DraftMethod::mtp, DraftMethod::eagle, DraftMethod::ngram})
    CHECK(parse_speculation(std::string(name(method)) + ":k=1,p=1").method == method);
}

TEST_CASE("what is not speculation is refused with the reason") {
  const auto says = [](std::string_view text, std::string_view reason) {
    const std::string error = speculation_error(text);
    INFO(error);
    CHECK(error.find(reason) != std::string::npos);
    CHECK(error.find("want METHOD:k=DRAFTS,p=ACCEPTANCE") != std::string::npos);
  };
  says("", "k is missing");
  says("k=3", "p is missing");
  says("eagel:k=3,p=0.8", "unknown method 'eagel', did you mean 'eagle'?");
  for (const char* text : {"k=0,p=0.5", "k=65,p=0.5", "k=x,p=0.5", "k=,p=0.5", "k=99999999999999,p=1"})
    says(text, "k must be a whole number from 1 to 64");
  for (const char* text : {"k=1,p=1.1", "k=1,p=-0.1", "k=1,p=nan", "k=1,p=inf", "k=1,p=", "k=2,p=0.5/"})
    says(text, "every p must be a number from 0 to 1");
  says("k=3,p=0.9/0.8", "2 values of p for k=3");
  says("k=1,p=0.5,q=1", "unknown or repeated field 'q'");
  says("k=1,k=1,p=0.5", "unknown or repeated field 'k'");
  says("k=1,p=" + std::string(1000, '/'), "more than 64 values of p");
}
