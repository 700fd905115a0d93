#include <doctest/doctest.h>

#include "core/json.h"
#include "core/text.h"

using namespace drydock::core;

namespace {

std::string json_error(const std::string& text) {
  try {
    parse_json(text, "x.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string field_error(const std::string& text, void (*read)(const Fields&)) {
  const Json json = parse_json(text, "x.json");
  try {
    read(Fields(json, "x.json"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("values of every kind are read, in order") {
  const Json json = parse_json(R"({"b": [1, -2, 3.5, "x", true, null], "a": {"c": {}}})", "x.json");
  CHECK(json.dump() == R"({"b":[1,-2,3.5,"x",true,null],"a":{"c":{}}})");
}

TEST_CASE("hostile text is refused in one line") {
  CHECK(json_error(R"({"a": 1, "a": 2})") == "x.json: field 'a' is there twice; keep one");
  CHECK(json_error(std::string(65, '[') + std::string(65, ']')) == "x.json: nested deeper than 64 levels");
  CHECK(json_error(std::string(64, '[') + std::string(64, ']')) == "");
  CHECK(json_error("[1e999]").starts_with("x.json: "));
  for (const std::string text : {"", "{", "[1,]", "{\"a\" 1}", "nul", "\"\\u12\"", "[1] 2", "\xff"}) {
    const std::string error = json_error(text);
    CHECK(error.starts_with("x.json: line 1: not JSON near '"));
    CHECK(error.find('\n') == std::string::npos);
  }
  CHECK(json_error("{\n\"a\": 1,\n]").starts_with("x.json: line 3: not JSON near '"));
  CHECK(json_error(R"({"a\n": 1, "a\n": 2})") == "x.json: field 'a?' is there twice; keep one");
  CHECK(json_error(std::string(kMaxJsonBytes + 1, ' ')).starts_with("x.json: 16777217 bytes of JSON"));
}

TEST_CASE("fields are checked for presence, type and range") {
  const auto layers = [](const Fields& f) { f.integer("layers", 1, 100); };
  CHECK(field_error("{}", layers) == "x.json: field 'layers': missing");
  CHECK(field_error(R"({"layers": null})", layers) == "x.json: field 'layers': missing");
  CHECK(field_error(R"({"layers": "7"})", layers) ==
        "x.json: field 'layers': want a whole number from 1 to 100, found \"7\"");
  CHECK(field_error(R"({"layers": 7.5})", layers) ==
        "x.json: field 'layers': want a whole number from 1 to 100, found 7.5");
  CHECK(field_error(R"({"layers": 18446744073709551615})", layers) ==
        "x.json: field 'layers': want a whole number from 1 to 100, found 18446744073709551615");
  CHECK(field_error(R"({"layers": 7})", layers) == "");
  CHECK(field_error(R"({"a": {"b": 3}})", [](const Fields& f) { f.object("a").text("b"); }) ==
        "x.json: field 'a.b': want a string, found number");
  CHECK(field_error(R"({"name": "a\u0007"})", [](const Fields& f) { f.text("name"); }) ==
        "x.json: field 'name': want at most 4096 bytes without control characters");
  CHECK(field_error(R"({"layer": 1})", [](const Fields& f) {
          f.only({"layers", "heads"});
        }) == "x.json: field 'layer': not known here, did you mean 'layers'?");
}

TEST_CASE("the nearest name is suggested, case ignored, and nothing when none is near") {
  const std::vector<std::string> names = {"h100_sxm", "h200_sxm", "gb200"};
  CHECK(nearest("H200_SXN", names) == "h200_sxm");
  CHECK(nearest("gb20", names) == "gb200");
  CHECK(nearest("completely different", names) == "");
  CHECK(suggestion("gb20", names) == ", did you mean 'gb200'?");
}
