#include <doctest/doctest.h>

#include <limits>

#include "core/csv.h"
#include "core/error.h"

using drydock::core::Csv;
using drydock::core::Error;

namespace {

std::string csv_error(std::string_view text) {
  try {
    Csv::parse(text, "x.csv");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("quotes, CRLF, a byte order mark and a missing last line end are read") {
  const Csv csv = Csv::parse(
      "\xEF\xBB\xBF"
      "name,note\r\na,\"x, \"\"y\"\"\nz\"\r\n\r\nb,",
      "x.csv");
  REQUIRE(csv.rows() == 2);
  CHECK(csv.columns() == std::vector<std::string>{"name", "note"});
  CHECK(csv.cell(0, 1) == "x, \"y\"\nz");
  CHECK(csv.cell(1, 0) == "b");
  CHECK(csv.cell(1, 1) == "");
  CHECK(csv.line(0) == 2);
  CHECK(csv.line(1) == 5);  // the quoted line break and the blank line count
}

TEST_CASE("malformed text is refused with its line") {
  CHECK(csv_error("") == "x.csv: empty; want a header row of column names");
  CHECK(csv_error("a,b\n1\n") == "x.csv: line 2: 1 fields; the header has 2");
  CHECK(csv_error("a,a\n") == "x.csv: line 1: column 'a' is there twice");
  CHECK(csv_error("a\n\"open\n") == "x.csv: line 2: a quote is never closed");
  CHECK(csv_error("a\n\"x\"y\n") == "x.csv: line 2: text after a closing quote");
  CHECK(csv_error("a\n" + std::string(70'000, 'x')) == "x.csv: line 2: a field of over 64 KiB");
  CHECK(csv_error(std::string("a\n\0b\n", 5)) == "x.csv: line 2: a NUL byte");
}

TEST_CASE("numbers are finite, in range, and whole where they must be") {
  const Csv csv = Csv::parse("v\n1.5\nnan\ninf\n1e400\n-1\n\n 2\n7\n", "x.csv");
  CHECK(*csv.number(0, 0, 0, 10) == 1.5);
  CHECK_THROWS_AS(csv.integer(0, 0, 0, 10), Error);
  for (const size_t row : {1u, 2u, 3u, 4u, 5u}) CHECK_THROWS_AS(csv.number(row, 0, 0, 10), Error);
  CHECK(*csv.integer(6, 0, 0, 10) == 7);
  CHECK_THROWS_WITH(csv.require({"v", "w", "u"}), "x.csv: line 1: missing column w, u");
}

TEST_CASE("a field is quoted only when it must be, and reads back") {
  CHECK(drydock::core::csv_field("plain text") == "plain text");
  for (const std::string text : {"a,b", "say \"hi\"", "two\nlines", ""}) {
    const Csv csv = Csv::parse("k,v\n1," + drydock::core::csv_field(text) + "\n", "x.csv");
    CHECK(csv.cell(0, 1) == text);
  }
}
