#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "core/error.h"
#include "simulator/trace.h"

using drydock::core::Error;
using namespace drydock::simulator;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kAzureHeader = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
constexpr std::string_view kBurstHeader = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";

// A trace in the folder for temporary files, removed at the end.
class TraceFile {
 public:
  explicit TraceFile(std::string_view content) { std::ofstream(path_, std::ios::binary) << content; }
  ~TraceFile() { fs::remove(path_); }
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;

  TraceOptions options() const {
    TraceOptions options;
    options.path = path_;
    return options;
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_ = fs::temp_directory_path() / ("drydock_trace_" + std::to_string(::getpid()));
};

struct Seen {
  double at_us;
  int64_t prompt_tokens, output_tokens;
  std::vector<uint64_t> hashes;
  bool operator==(const Seen&) const = default;
};

std::vector<Seen> drain(Load& load) {
  std::vector<Seen> seen;
  while (!load.done()) {
    const Arrival a = load.take();
    seen.push_back({a.at_us, a.prompt_tokens, a.output_tokens, {a.hashes.begin(), a.hashes.end()}});
    load.finished(a.tag, a.at_us);
  }
  return seen;
}

std::vector<Seen> read(std::string_view content) {
  const TraceFile file(content);
  return drain(*open_trace(file.options()));
}

// The error that reading to the end ends in, without the file's name; "" without one.
std::string trace_error(std::string_view content, std::optional<TraceFormat> format = {}) {
  const TraceFile file(content);
  TraceOptions options = file.options();
  options.format = format;
  try {
    drain(*open_trace(options));
  } catch (const Error& error) {
    const std::string what = error.what(), origin = file.path().string() + ": ";
    REQUIRE(what.starts_with(origin));
    return what.substr(origin.size());
  }
  return "";
}

std::string azure(std::string_view rows) { return std::string(kAzureHeader) + std::string(rows); }
std::string burst(std::string_view rows) { return std::string(kBurstHeader) + std::string(rows); }
std::string json(int64_t ms, int64_t input, int64_t output, std::string_view hashes) {
  return "{\"timestamp\": " + std::to_string(ms) + ", \"input_length\": " + std::to_string(input) +
         ", \"output_length\": " + std::to_string(output) + ", \"hash_ids\": [" + std::string(hashes) + "]}\n";
}

// Memory in use now [bytes].
int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

}  // namespace

TEST_CASE("Mooncake lines: milliseconds, lengths and hashes of 512 tokens") {
  const TraceFile file(json(3000, 600, 5, "7, 18446744073709551615") + "\n" + json(3000, 512, 1, "7") +
                       "{\"type\": {\"a\": [1]}, \"timestamp\": 3000.5, \"output_length\": 2, \"input_length\": 9}");
  const auto trace = open_trace(file.options());
  CHECK(trace->format() == TraceFormat::mooncake);
  CHECK(trace->hash_tokens() == 512);
  // The first request is time 0, so 3000.5 ms become 500 us.
  CHECK(drain(*trace) == std::vector<Seen>{{0, 600, 5, {7, 18446744073709551615u}}, {0, 512, 1, {7}}, {500, 9, 2, {}}});
  CHECK(trace->bad_lines() == 0);
}

TEST_CASE("Azure rows: dates with 0 to 7 digits of the second or a zone, CRLF, no last line end") {
  const auto seen = read(
      "\xEF\xBB\xBF"
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-12-31 23:59:59.9799600,4808,10\r\n"
      "2024-01-01 00:00:00,3180,8\r\n2024-01-01 00:00:00.5,1,1\r\n\r\n2024-02-29 00:00:00.000001+00:00,110,27");
  // 23:59:59.97996 to midnight is 20040 us, and half a second more is 520040; to February 29 there are 59 days.
  CHECK(seen ==
        std::vector<Seen>{
            {0, 4808, 10, {}}, {20'040, 3180, 8, {}}, {520'040, 1, 1, {}}, {59 * 86'400e6 + 20'041, 110, 27, {}}});
}

TEST_CASE("BurstGPT rows: seconds, columns by name, quotes; newer releases have more columns") {
  CHECK(read(burst("5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,1087,230,1317,\"a, b\"\n")) ==
        std::vector<Seen>{{0, 472, 18, {}}, {40.5e6, 1087, 230, {}}});
  CHECK(read("Session ID,Timestamp,Response tokens,Elapsed time,Request tokens\n,7,2,0.5,3\n") ==
        std::vector<Seen>{{0, 3, 2, {}}});
}

TEST_CASE("speed, a limit and made-up prefixes") {
  const TraceFile file(burst("0,m,1024,1,1,l\n10,m,1024,1,1,l\n20,m,1024,1,1,l\n"));
  TraceOptions options = file.options();
  options.speed = 4;
  options.most_requests = 2;
  options.prefix = {0.5, 512};
  const auto trace = open_trace(options);
  const auto seen = drain(*trace);
  REQUIRE(seen.size() == 2);
  CHECK(seen[1].at_us == 2.5e6);
  CHECK(trace->hash_tokens() == 512);
  REQUIRE(seen[0].hashes.size() == 2);  // half of 1024 tokens is one block of two
  CHECK(seen[0].hashes[0] == seen[1].hashes[0]);
  CHECK(seen[0].hashes[1] != seen[1].hashes[1]);
  CHECK(drain(*open_trace(options)) == seen);
  options.most_requests = 0;
  CHECK(open_trace(options)->done());
  options.speed = 0;
  CHECK_THROWS_WITH_AS(open_trace(options), "trace speed: want 1e-09 to 1000000000, found 0", Error);
}

TEST_CASE("a line that is wrong is refused by its number") {
  const std::string good = json(5, 600, 5, "1, 2");
  CHECK(trace_error(good + "{\"timestamp\": 6, \"inp") == "line 2: not JSON near '\"inp'; the file may be cut short");
  CHECK(trace_error(good + "\n\xFF\xFE\x80\n") == "line 3: not JSON near '?'");
  CHECK(trace_error(good + "{\"a\": \"\xC3(\"}\n") == "line 2: not JSON near '\"?('");
  CHECK(trace_error(good + "[1]\n") == "line 2: want a JSON object, found array");
  CHECK(trace_error(good + "{\"timestamp\": 6}\n") == "line 2: field 'input_length': missing");
  CHECK(trace_error(good + "{\"timestamp\": 6, \"timestamp\": 6}\n") ==
        "line 2: field 'timestamp' is there twice; keep one");
  CHECK(trace_error(json(5, 0, 1, "")) ==
        "line 1: field 'input_length': want a whole number from 1 to 10000000, found 0");
  CHECK(trace_error(json(5, 10'000'001, 1, "")) ==
        "line 1: field 'input_length': want a whole number from 1 to 10000000, found 10000001");
  CHECK(trace_error(good + json(6, 4, -3, "")) ==
        "line 2: field 'output_length': want a whole number from 1 to 10000000, found -3");
  CHECK(trace_error(json(-1, 4, 3, "")) == "line 1: field 'timestamp': want a number from 0 to 1e+14, found -1");
  CHECK(trace_error(good + json(6, 512, 1, "1, 2")) ==
        "line 2: field 'hash_ids': want at most 1, one per 512 of the prompt's tokens, found '2'");
  CHECK(trace_error(json(6, 512, 1, "-1")) == "line 1: field 'hash_ids': want whole numbers from 0, found '-1'");
  CHECK(trace_error(good + "\n" + json(4, 1, 1, "")) ==
        "line 3: time 4 is before 5 on line 1; want requests in order of time");
}

TEST_CASE("a row that is wrong is refused by its number") {
  CHECK(trace_error(azure("2023-11-16 18:17:03,549\n")) == "line 2: 2 fields; the header has 3");
  CHECK(trace_error(azure("2023-11-16 18:17:03,549,")) ==
        "line 2: field 'GeneratedTokens': want a whole number from 1 to 10000000, found ''; the file may be cut short");
  for (const std::string time : {"2023-02-29 18:17:03", "2023-11-16 24:17:03", "2023-11-16 18:17:03.", "2023-11-16",
                                 "2023-11-16 18:17:03.1234567890", "16.11.2023 18:17:03"})
    CHECK(trace_error(azure(time + ",1,1\n")) ==
          "line 2: field 'TIMESTAMP': want a time like 2023-11-16 18:17:03.9799600, found '" + time + "'");
  CHECK(
      trace_error(azure("2023-11-16 18:17:03.2,1,1\n2023-11-16 18:17:03.10,1,1\n")) ==
      "line 3: time 2023-11-16 18:17:03.10 is before 2023-11-16 18:17:03.2 on line 2; want requests in order of time");
  CHECK(trace_error(azure("2023-11-16 18:17:03,1e3,1\n")) ==
        "line 2: field 'ContextTokens': want a whole number from 1 to 10000000, found '1e3'");
  // Calls that failed have no response.
  CHECK(trace_error(burst("5,m,472,0,472,l\n")) ==
        "line 2: field 'Response tokens': want a whole number from 1 to 10000000, found '0'");
  CHECK(trace_error(burst("nan,m,1,1,1,l\n")) ==
        "line 2: field 'Timestamp': want seconds from 0 to 1e+11, found 'nan'");
  CHECK(trace_error(burst("5,m,\xFF\x01,1,1,l\n")) ==
        "line 2: field 'Request tokens': want a whole number from 1 to 10000000, found '?\?'");
  CHECK(trace_error(burst("5,\"m,1,1,1,l\n")) == "line 2: 2 fields; the header has 6");
}

TEST_CASE("a file that is no trace is refused") {
  const std::string unknown =
      "line 1: not a known trace; want a Mooncake JSON object, or a CSV header with TIMESTAMP,ContextTokens,"
      "GeneratedTokens (Azure) or Timestamp,Request tokens,Response tokens (BurstGPT)";
  CHECK(trace_error("a,b\n1,2\n") == unknown);
  CHECK(trace_error(std::string("\0\xFF\n", 3)) == unknown);
  CHECK(trace_error("") == "empty; want a trace of requests");
  CHECK(trace_error(" \n\r\n") == "empty; want a trace of requests");
  CHECK(trace_error(azure("")) == "no requests in it; want at least one");
  CHECK(trace_error(azure(""), TraceFormat::burstgpt) ==
        "line 1: no column 'Timestamp' in the header; a trace of format burstgpt has one");
  CHECK(trace_error(azure(""), TraceFormat::mooncake) == "line 1: not JSON near 'T'");
  TraceOptions options;
  options.path = fs::temp_directory_path();
  CHECK_THROWS_WITH_AS(open_trace(options), (options.path.string() + ": is a folder; want a file").c_str(), Error);
  options.path /= "drydock_none";
  CHECK_THROWS_WITH_AS(open_trace(options),
                       (options.path.string() + ": can't be read: No such file or directory").c_str(), Error);
  const TraceFile file(json(0, 1, 1, ""));
  options = file.options();
  options.prefix = {0.5, 512};
  CHECK_THROWS_WITH_AS(
      open_trace(options),
      (file.path().string() + ": has hashes of its own; want no share of a common prefix with it").c_str(), Error);
  CHECK(parse_trace_format("azure", "--format") == TraceFormat::azure);
  CHECK_THROWS_WITH_AS(parse_trace_format("azur", "--format"),
                       "--format: want mooncake, azure or burstgpt, found 'azur', did you mean 'azure'?", Error);
}

TEST_CASE("a line over 1 MiB is refused, and what follows it can be read") {
  const std::string good = json(5, 600, 5, "1, 2");
  for (const size_t length : {size_t{2'500'000}, (size_t{1} << 20) + 1}) {
    const std::string content = good + std::string(length, 'x') + "\n" + json(6, 1, 1, "");
    CHECK(trace_error(content) == "line 2: over 1 MiB; want one request a line");
    const TraceFile file(content);
    TraceOptions options = file.options();
    options.skip_bad = true;
    const auto trace = open_trace(options);
    CHECK(drain(*trace).size() == 2);
    CHECK(trace->bad_lines() == 1);
  }
  const std::string last = json(6, 1, 1, "");
  const std::string exact = std::string((1u << 20) - last.size() + 1, ' ') + last;  // with its line end one more
  CHECK(read(good + exact).size() == 2);
  CHECK(trace_error(good + " " + exact) == "line 2: over 1 MiB; want one request a line");
  CHECK(trace_error(std::string(1u << 21, '{')) == "line 1: over 1 MiB; want one request a line");
}

TEST_CASE("bad lines can be passed over and are counted") {
  const TraceFile file(burst("5,m,4,1,1,l\n6,m,4,0,4,l\n4,m,4,1,1,l\nx\n7,m,4,2,6,l\n8,m,4"));
  TraceOptions options = file.options();
  options.skip_bad = true;
  const auto trace = open_trace(options);
  CHECK(drain(*trace) == std::vector<Seen>{{0, 4, 1, {}}, {2e6, 4, 2, {}}});
  CHECK(trace->bad_lines() == 4);
  const TraceFile all_bad(burst("x\ny\n"));
  options.path = all_bad.path();
  CHECK_THROWS_WITH_AS(open_trace(options), (all_bad.path().string() + ": no requests in it, but 2 bad lines").c_str(),
                       Error);
}

TEST_CASE("memory does not grow with the file") {
  const TraceFile file("");
  constexpr int64_t kLines = 200'000;
  {
    std::ofstream out(file.path());
    for (int64_t i = 0; i < kLines; ++i) out << json(i, 2048, 100, "1, 2, " + std::to_string(i) + ", 123456789");
  }
  REQUIRE(fs::file_size(file.path()) > 18'000'000);
  const auto trace = open_trace(file.options());
  const int64_t before = resident_bytes();
  int64_t most = before, count = 0;
  for (; !trace->done(); ++count) {
    const Arrival arrival = trace->take();
    REQUIRE(arrival.hashes[2] == static_cast<uint64_t>(count));
    if (count % 1000 == 0) most = std::max(most, resident_bytes());
  }
  CHECK(count == kLines);
#ifndef __SANITIZE_ADDRESS__  // which keeps what was freed
  CHECK(most - before < 2'000'000);
#endif
}
