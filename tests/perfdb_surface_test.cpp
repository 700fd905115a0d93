#include <doctest/doctest.h>

#include <cmath>

#include "core/error.h"
#include "perfdb/surface.h"

namespace drydock::perfdb {
namespace {

// Knots x: 0, 1, 3 and y: 0, 2; the values are those of f(x, y) = 0.4 x + 0.1 y, which multilinear pieces meet exactly.
Surface plane() {
  Surface surface;
  surface.axes = 2;
  surface.knots[0] = {0, 1, 3};
  surface.knots[1] = {0, 2};
  surface.values = {0.0f, 0.2f, 0.4f, 0.6f, 1.2f, 1.4f};
  surface.supported.assign(6, 1);
  surface.bands = {Band{-0.1f, 0.2f}, Band{-0.2f, 0.3f}, Band{-0.3f, 0.4f}, Band{-0.4f, 0.5f}};
  return surface;
}

}  // namespace

TEST_CASE("a surface interpolates multilinearly") {
  const Surface surface = plane();
  // Float sums of four products of numbers under 2: within 1e-6.
  CHECK(evaluate(surface, {0.5f, 1.0f}).log_ratio == doctest::Approx(0.3).epsilon(1e-5));
  CHECK(evaluate(surface, {2.0f, 0.5f}).log_ratio == doctest::Approx(0.85).epsilon(1e-5));
  CHECK(evaluate(surface, {3.0f, 2.0f}).log_ratio == doctest::Approx(1.4).epsilon(1e-5));
  CHECK(evaluate(surface, {1.0f, 0.0f}).log_ratio == doctest::Approx(0.4).epsilon(1e-5));
}

TEST_CASE("outside the lattice the nearest edge answers and the distance is told") {
  const Correction beyond = evaluate(plane(), {5.0f, 1.0f});
  CHECK(beyond.log_ratio == doctest::Approx(1.3).epsilon(1e-5));
  CHECK(beyond.outside == doctest::Approx(2.0));
  CHECK(evaluate(plane(), {-1.0f, 2.5f}).outside == doctest::Approx(1.5));
  CHECK(evaluate(plane(), {2.0f, 1.0f}).outside == 0.0f);
}

TEST_CASE("the band is that of the part of the first axis") {
  // Three rows, four bands: row r has band floor(4 r / 3) = 0, 1, 2; a cell has the band of its lower row.
  CHECK(evaluate(plane(), {0.5f, 0.0f}).band.high == 0.2f);
  CHECK(evaluate(plane(), {1.5f, 0.0f}).band.high == 0.3f);
}

TEST_CASE("the share of supported corners is told") {
  Surface surface = plane();
  surface.supported = {1, 1, 1, 0, 0, 0};
  CHECK(evaluate(surface, {0.5f, 0.0f}).support == doctest::Approx(1.0));
  CHECK(evaluate(surface, {0.5f, 1.0f}).support == doctest::Approx(0.75));
  CHECK(evaluate(surface, {3.0f, 1.0f}).support == doctest::Approx(0.0));
}

TEST_CASE("decode(encode(s)) is s to within half a step") {
  Surface surface = plane();
  surface.values[3] = -2.345f;  // too far from its neighbours for a one-character step
  const Surface back = decode(encode(surface), "test");
  REQUIRE(back.axes == 2);
  CHECK(back.knots[0] == surface.knots[0]);
  CHECK(back.knots[1] == surface.knots[1]);
  REQUIRE(back.values.size() == 6);
  // Steps of 0.004, rounded to the nearest: half of one, and float rounding.
  for (size_t i = 0; i < 6; ++i) CHECK(std::abs(back.values[i] - surface.values[i]) <= 0.00201f);
  for (size_t i = 0; i < kBands; ++i) {
    CHECK(back.bands[i].low == surface.bands[i].low);
    CHECK(back.bands[i].high == surface.bands[i].high);
  }
  CHECK(encode(back) == encode(surface));
}

TEST_CASE("knots without samples take the nearest value along the last axis, then along the one before") {
  Surface surface;
  surface.axes = 2;
  surface.knots[0] = {0, 1};
  surface.knots[1] = {0, 1, 2, 3};
  surface.values = {0.4f, 9, 9, 0.8f, 9, 9, 9, 9};
  surface.supported = {1, 0, 0, 1, 0, 0, 0, 0};
  const Surface back = decode(encode(surface), "test");
  CHECK(back.supported == surface.supported);
  const float want[] = {0.4f, 0.4f, 0.8f, 0.8f, 0.4f, 0.4f, 0.8f, 0.8f};
  for (size_t i = 0; i < 8; ++i) CHECK(std::abs(back.values[i] - want[i]) <= 0.00201f);
}

TEST_CASE("what encode does not write is refused, with the origin named") {
  const std::string good = encode(plane());
  const auto refused = [](const std::string& text) {
    try {
      decode(text, "perf.db");
    } catch (const core::Error& error) {
      return std::string(error.what()).starts_with("perf.db: surface: ");
    }
    return false;
  };
  CHECK_FALSE(refused(good));
  CHECK(refused(""));
  CHECK(refused("baseline=1;axes=9;" + good.substr(good.find("knots"))));
  CHECK(refused(good.substr(0, good.size() - 1)));
  CHECK(refused(good + "?"));
  CHECK(refused("baseline=0" + good.substr(10)));
  CHECK(refused(good.substr(0, good.size() - 1) + " "));
  std::string descending = good;
  descending.replace(descending.find("knots=0,1,3"), 11, "knots=0,3,1");
  CHECK(refused(descending));
  std::string nan = good;
  nan.replace(nan.find("knots=0,1,3"), 11, "knots=0,1,nan");
  CHECK(refused(nan));
  for (size_t i = 0; i < good.size(); ++i) {  // a cut anywhere is seen
    INFO(i);
    CHECK(refused(good.substr(0, i)));
  }
}

}  // namespace drydock::perfdb
