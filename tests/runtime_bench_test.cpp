#include <doctest/doctest.h>

#include <cmath>
#include <mutex>
#include <set>

#include "core/error.h"
#include "core/json.h"
#include "runtime/bench_client.h"
#include "runtime/sse.h"
#include "runtime/stream_chunk.h"
#include "simulator/metrics.h"
#include "tests/fake_openai.h"

using namespace drydock;
using namespace drydock::runtime;
using tests::FakeAnswer;
using tests::FakeServer;

namespace {

std::vector<std::string> events_of(const std::vector<std::string>& pieces) {
  SseReader reader;
  std::vector<std::string> out;
  for (const std::string& piece : pieces) reader.feed(piece, [&](std::string_view data) { out.emplace_back(data); });
  return out;
}

struct Benched {
  BenchTotals totals;
  simulator::Recorder recorder{[] {
    simulator::Recorder::Options o;
    o.keep_records = true;
    return o;
  }()};
  std::string error;
};

simulator::ClosedLoopOptions users(int64_t concurrency, int64_t prompts, int64_t output_tokens) {
  simulator::ClosedLoopOptions out;
  out.concurrency = concurrency;
  out.prompts = prompts;
  out.warmup = 0;
  out.lengths = simulator::LengthDistribution::fixed(20, output_tokens);
  return out;
}

Benched bench(const FakeServer& server, const simulator::ClosedLoopOptions& asked, BenchRun run = {}) {
  Benched out;
  run.target.url = server.url();
  if (run.target.timeout_s > 100) run.target.timeout_s = 20;
  run.form.model = "fake";
  run.streams = asked.concurrency;
  simulator::CountedLoad load(simulator::make_closed_loop(asked));
  out.totals = run_bench(run, load, out.recorder);
  return out;
}

double mean(const std::vector<double>& values) { return simulator::distribution(values).mean; }

// Of a thread that sleeps and one that wakes up, on a machine with other work; a mean over many requests.
constexpr double kSlackMs = 25;

}  // namespace

TEST_CASE("server-sent events are read whatever their pieces and line ends") {
  const std::vector<std::string> both = {"one", "two\nlines"};
  const std::string text = "data: one\n\nevent: x\ndata: two\ndata:lines\nid: 7\n\n";
  CHECK(events_of({text}) == both);
  std::string crlf, cr;
  for (const char c : text) crlf += c == '\n' ? "\r\n" : std::string(1, c), cr += c == '\n' ? '\r' : c;
  for (const std::string& form : {text, crlf, cr, "\xEF\xBB\xBF" + text}) {
    std::vector<std::string> bytes;
    for (const char c : form) bytes.emplace_back(1, c);
    CHECK(events_of({form}) == both);
    CHECK(events_of(bytes) == both);
  }
  CHECK(events_of({": ping\n\n\n\ndatabase: no\n\nda", "ta:", " x", "\n", "\n"}) == std::vector<std::string>{"x"});
  CHECK(events_of({"data\n\n"}) == std::vector<std::string>{""});
  CHECK(events_of({"data: no end\n"}).empty());
  SseReader reader;
  const std::string half(SseReader::kMostEventBytes / 2, 'x');
  const auto ignore = [](std::string_view) {};
  CHECK_NOTHROW(reader.feed("data: " + half + "\n\ndata: " + half, ignore));  // each of them is short enough
  CHECK_THROWS_AS(reader.feed(half + "\n", ignore), core::Error);
}

TEST_CASE("chunks of completions, chats and their usage are told apart") {
  const StreamChunk token = read_stream_chunk(tests::kFakeToken);
  CHECK((token.is_json && token.output && !token.finished && !token.silent));
  const auto chat = [](const std::string& delta, const std::string& finish = "null") {
    return read_stream_chunk(R"({"choices":[{"index":0,"delta":{)" + delta + R"(},"finish_reason":)" + finish + "}]}");
  };
  CHECK(chat(R"("content":"x")").output);
  CHECK(chat(R"("reasoning_content":"x")").output);
  CHECK(chat(R"("tool_calls":[{"index":0}])").output);
  const StreamChunk opening = chat(R"("role":"assistant","content":"")");  // before any token
  CHECK((!opening.output && !opening.silent));
  const StreamChunk part = chat(R"("content":"")");  // half of a character
  CHECK((!part.output && part.silent));
  const StreamChunk last = chat("", R"("length")");
  CHECK((last.finished && !last.output && !last.silent));
  const StreamChunk usage = read_stream_chunk(
      R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}})");
  CHECK((usage.prompt_tokens == 7 && usage.completion_tokens == 9 && usage.cached_tokens == 4 && !usage.silent));
  CHECK(read_stream_chunk(R"({"error":{"message":"too long","code":400}})").error == "too long");
  CHECK(read_stream_chunk(R"({"detail":"Not Found"})").error == "Not Found");
  CHECK(!read_stream_chunk(R"({"choices":[{"text":"x"})").is_json);
  CHECK(!read_stream_chunk("[1]").is_json);
  CHECK(!read_stream_chunk(std::string(1000, '[')).is_json);
  std::string deep = R"({"a":)" + std::string(500, '[');
  CHECK(!read_stream_chunk(deep).is_json);
}

TEST_CASE("prompts have the length asked for and share what their hashes say") {
  const std::vector<uint64_t> one = {1, 2, 3}, other = {1, 2, 4};
  std::vector<Token> a, b, c;
  const TokenRange range{100, 199};
  const auto fill = [&](const std::vector<uint64_t>& hashes, int64_t number, std::vector<Token>& out) {
    simulator::Arrival arrival;
    arrival.prompt_tokens = 25, arrival.hashes = hashes;
    prompt_tokens(arrival, 8, range, 1, number, out);
  };
  fill(one, 0, a), fill(other, 1, b), fill({}, 2, c);
  CHECK((a.size() == 25 && b.size() == 25 && c.size() == 25));
  CHECK(std::equal(a.begin(), a.begin() + 16, b.begin()));
  // 9 tokens of 100 values each: equal by chance once in 1e18.
  CHECK(!std::equal(a.begin() + 16, a.end(), b.begin() + 16));
  CHECK(!std::equal(c.begin(), c.begin() + 9, a.begin()));
  for (const Token token : c) CHECK((token >= 100 && token <= 199));
  RequestForm form;
  form.model = "a \"b\"", form.extra = R"("min_tokens":5)";
  core::Json body = core::parse_json(request_body(form, a, 5), "body");
  CHECK(body["model"] == "a \"b\"");
  CHECK(body["prompt"].size() == 25);
  CHECK((body["max_tokens"] == 5 && body["min_tokens"] == 5 && body["stream"] == true && body["ignore_eos"] == true));
  form.chat = true, form.unit = TextUnit::letter, form.chat_overhead = 5;
  body = core::parse_json(request_body(form, a, 5), "body");
  CHECK(body["messages"][0]["content"].get<std::string>().size() == 20);
}

TEST_CASE("times are those of the server") {
  std::mutex lock;
  std::set<std::string> bodies;
  const FakeServer server([&](const std::string& path, const std::string& body) {
    CHECK(path == "/v1/completions");
    std::lock_guard guard(lock);
    bodies.insert(body);
    return FakeAnswer::stream(11, 40, 10, 20);
  });
  const Benched b = bench(server, users(8, 40, 11));
  CHECK(b.totals.end == BenchEnd::over);
  CHECK((b.totals.answered == 40 && b.totals.errors.empty() && b.totals.wrong_lengths == 0));
  CHECK(b.totals.prompt_tokens == 40 * 20);
  CHECK(bodies.size() == 40);  // no two prompts are the same
  CHECK(b.totals.most_in_flight == 8);
  CHECK(mean(b.recorder.ttft_ms()) == doctest::Approx(40 + kSlackMs / 2).epsilon(kSlackMs / 2 / 40));
  CHECK(mean(b.recorder.tpot_ms()) == doctest::Approx(10).epsilon(0.2));
  CHECK(b.recorder.itl_ms().count() == 400);
  CHECK(b.recorder.itl_ms().mean() == doctest::Approx(10).epsilon(0.2));
  CHECK(mean(b.recorder.latency_ms()) == doctest::Approx(140 + kSlackMs / 2).epsilon(kSlackMs / 2 / 140));
  // Five rounds of 8 users, 140 ms each.
  CHECK(b.totals.wall_s == doctest::Approx(0.8).epsilon(0.2));
  CHECK(b.recorder.output_tokens() == 440);
}

TEST_CASE("a slow server makes the open loop's users wait, not come later") {
  const FakeServer server([](const std::string&, const std::string&) { return FakeAnswer::stream(2, 150, 1); });
  simulator::OpenOptions open;
  open.rate.per_s = 100, open.burstiness = 1e9, open.requests = 30;
  simulator::CountedLoad load(simulator::make_open_load(open));
  Benched b;
  BenchRun run;
  run.target.url = server.url();
  b.totals = run_bench(run, load, b.recorder);
  REQUIRE(b.recorder.records().size() == 30);
  // One every 10 ms: 15 of them wait for their first token at a time.
  CHECK((b.totals.most_in_flight >= 14 && b.totals.most_in_flight <= 22));
  CHECK(mean(b.recorder.ttft_ms()) == doctest::Approx(150 + kSlackMs / 2).epsilon(kSlackMs / 2 / 150));
  CHECK(b.recorder.last_answer_us() == doctest::Approx(29 * 1e4 + 161e3).epsilon(0.2));
}

TEST_CASE("what goes wrong is counted by what it was") {
  int asked = 0;
  const FakeServer server([&](const std::string&, const std::string&) {
    const std::string token = tests::fake_event(tests::kFakeToken);
    FakeAnswer bad;
    switch (asked++) {
      case 0:  // two tokens, then nothing more
        bad.pieces = {{1, token}, {2, token}};
        bad.breaks = true;
        return bad;
      case 1:  // an end without a finish
        bad.pieces = {{1, token}};
        return bad;
      case 2:
        bad.pieces = {{1, token}, {2, tests::fake_event("{\"choices\":[{")}};
        return bad;
      case 3:
        bad.pieces = {{1, tests::fake_event(R"({"error":{"message":"out of memory"}})")}};
        return bad;
      case 4:
        bad.status = 400;
        bad.pieces = {{1, R"({"error":{"message":"prompt is too long"}})"}};
        return bad;
      case 5:  // no tokens at all
        bad.pieces = {{1, tests::fake_event("[DONE]")}};
        return bad;
      case 6:
        bad.pieces = {{1, "data: " + std::string(SseReader::kMostEventBytes + 10, 'x')}};
        return bad;
      case 7:  // silent for longer than the client waits
        bad.pieces = {{1, token}, {5000, token}};
        return bad;
      default:
        return FakeAnswer::stream(3, 1, 1);
    }
  });
  BenchRun run;
  run.target.timeout_s = 0.6;
  const Benched b = bench(server, users(1, 10, 3), run);
  CHECK((b.totals.answered == 2 && b.totals.totals.lost == 8 && b.totals.totals.rejected == 0));
  CHECK(b.recorder.requests() == 2);
  const auto count = [&](const std::string& begin) {
    int64_t out = 0;
    for (const auto& [what, times] : b.totals.errors) out += what.starts_with(begin) ? times : 0;
    return out;
  };
  CHECK(count("stream broke") == 1);
  CHECK(count("stream ended early") == 1);
  CHECK(count("malformed event") == 1);
  CHECK(count("out of memory") == 1);
  CHECK(count("HTTP 400: prompt is too long") == 1);
  CHECK(count("an answer without tokens") == 1);
  CHECK(count("event stream: ") == 1);
  CHECK(count("timed out") == 1);
  CHECK(b.totals.chunks >= 6);
}

TEST_CASE("a refused request is tried again after as long as the server asks") {
  int asked = 0;
  const FakeServer server([&](const std::string&, const std::string&) {
    if (asked++ % 2 == 1) return FakeAnswer::stream(2, 1, 1);
    FakeAnswer busy;
    busy.status = 429;
    busy.headers = "Retry-After: 1\r\n";
    busy.pieces = {{0, R"({"error":{"message":"queue is full"}})"}};
    return busy;
  });
  BenchRun run;
  run.retries = 1;
  const Benched patient = bench(server, users(1, 1, 2), run);
  CHECK((patient.totals.answered == 1 && patient.totals.retried == 1 && patient.totals.errors.empty()));
  // Users see the wait: it counts from when the request was due.
  CHECK(patient.recorder.ttft_ms()[0] == doctest::Approx(1020).epsilon(0.05));
  const Benched refused = bench(server, users(1, 2, 2));
  CHECK((refused.totals.answered == 1 && refused.totals.totals.rejected == 1));
  CHECK(refused.totals.errors.at("HTTP 429: queue is full") == 1);
  CHECK(refused.totals.wall_s == doctest::Approx(1.05).epsilon(0.1));  // its user waited before it went on
}

TEST_CASE("an interrupt keeps what was measured, and a server that is not there is told in one line") {
  std::atomic<bool> stop{false};
  {
    const FakeServer server([&](const std::string& path, const std::string&) {
      FakeAnswer models;
      models.pieces = {{0, R"({"object":"list","data":[{"id":"fake/model","object":"model"}]})"}};
      return path == "/v1/models" ? models : FakeAnswer::stream(4, 5, 5);
    });
    BenchTarget target;
    target.url = server.url() + "/v1/";
    CHECK(ask_server(target).models == std::vector<std::string>{"fake/model"});
    BenchRun run;
    run.stop = &stop;
    run.progress = [&](const BenchProgress& p) {
      if (p.answered > 5) stop = true;
    };
    const Benched b = bench(server, users(4, 100'000, 4), run);
    CHECK(b.totals.end == BenchEnd::stopped);
    CHECK((b.totals.answered > 5 && b.totals.answered < 10'000));
    CHECK(b.recorder.requests() == b.totals.answered);
    CHECK(b.totals.totals.unfinished <= 4);  // none, if all were answered just then
  }
  BenchTarget nobody;
  nobody.url = "http://127.0.0.1:1";
  CHECK_THROWS_WITH_AS(ask_server(nobody), doctest::Contains("http://127.0.0.1:1: no answer"), core::Error);
  nobody.url = "127.0.0.1:8000";
  CHECK_THROWS_WITH_AS(ask_server(nobody), doctest::Contains("want http://HOST:PORT"), core::Error);
}

TEST_CASE("text for chats has the server's count of tokens") {
  // Bytes are tokens, and the template takes 13 of them; or a word is one, and it takes 6.
  for (const bool bytes : {true, false}) {
    const FakeServer server([&](const std::string&, const std::string& body) {
      const std::string text = core::parse_json(body, "body")["messages"][0]["content"];
      const auto words = std::count(text.begin(), text.end(), ' ');
      const auto tokens = bytes ? static_cast<int64_t>(text.size()) + 13 : std::max<int64_t>(1, words) + 6;
      FakeAnswer out;
      out.pieces = {{0, R"({"choices":[],"usage":{"prompt_tokens":)" + std::to_string(tokens) + "}}"}};
      return out;
    });
    RequestForm form;
    form.chat = true;
    BenchTarget target;
    target.url = server.url();
    learn_text(target, form);
    CHECK(form.unit == (bytes ? TextUnit::letter : TextUnit::word));
    CHECK(form.chat_overhead == (bytes ? 13 : 6));
    CHECK(form.tokens_per_unit == 1);
  }
}
