// Clients that are broken, slow, gone or hostile: the server stays up, and nothing of them stays open.
#include <doctest/doctest.h>

#include <future>
#include <string>
#include <thread>

#include "core/random.h"
#include "tests/effort.h"
#include "tests/runtime_http_bed.h"

using namespace drydock;
using namespace drydock::tests;
using namespace std::chrono_literals;

namespace {

Script endless(const runtime::Generation&) {
  Script script = saying("ab", 2ms);
  script.stuck = true;
  return script;
}

std::string streamed() { return post("/v1/completions", R"({"prompt": "hi", "max_tokens": 4000, "stream": true})"); }

// Requests from which the malformed ones are made.
std::vector<std::string> seeds() {
  return {
      post("/v1/completions",
           R"({"prompt": "hi", "max_tokens": 3, "temperature": 0.5, "stop": ["a", "b"], "stream": true})"),
      post("/v1/chat/completions",
           R"({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "logprobs": true})"),
      get("/v1/models"),
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
      "e\r\n{\"prompt\": \"a\"\r\n1\r\n}\r\n0\r\n\r\n",
      "POST /tokenize HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 15\r\nExpect: "
      "100-continue\r\n\r\n{\"prompt\": \"a\"}"};
}

// Up to four changes: bytes flipped, dropped, doubled or put in, a cut, another's tail.
std::string mutated(core::Random& random, const std::vector<std::string>& from) {
  const auto index = [&](size_t size) {
    return static_cast<size_t>(random.integer(0, static_cast<int64_t>(size) - 1));
  };
  static const std::vector<std::string> kPieces = {"\r\n",
                                                   "\r\n\r\n",
                                                   ":",
                                                   "\"",
                                                   "{",
                                                   "[[[[[[[[",
                                                   "\\ud800",
                                                   "Content-Length: 99999999999999999999\r\n",
                                                   "Content-Length: -1\r\n",
                                                   "Transfer-Encoding: chunked\r\n",
                                                   "Transfer-Encoding: gzip\r\n",
                                                   "FFFFFFFFFFFFFFFF\r\n",
                                                   "1e999",
                                                   "null",
                                                   std::string(1, '\0'),
                                                   "\xFF\xFE",
                                                   " ",
                                                   "HTTP/9.9",
                                                   std::string(300, 'A')};
  std::string out = from[index(from.size())];
  for (int64_t changes = random.integer(1, 4); changes > 0 && !out.empty(); --changes) {
    const size_t at = index(out.size());
    switch (random.integer(0, 5)) {
      case 0:
        out[at] = static_cast<char>(random.integer(0, 255));
        break;
      case 1:
        out.erase(at, index(8) + 1);
        break;
      case 2:
        out.insert(at, kPieces[index(kPieces.size())]);
        break;
      case 3:
        out.insert(at, out.substr(at, index(64) + 1));
        break;
      case 4:
        out.resize(at);
        break;
      default:
        out = out.substr(0, at) + from[index(from.size())].substr(index(20));
        break;
    }
  }
  return out;
}

}  // namespace

TEST_CASE("10,000 malformed requests: no crash, nothing left open, no memory kept") {
  HttpBed bed([](const runtime::Generation&) { return saying("abc"); });
  core::Random random(11);
  const std::vector<std::string> from = seeds();
  const auto round = [&](int count) {
    for (int i = 0; i < count; ++i) {
      RawClient client(bed.server.port());
      client.send(mutated(random, from));
      // One in four waits for what comes; others leave at once, in an orderly way or not.
      const int64_t how = random.integer(0, 7);
      if (how < 2) client.closed_within(1ms);
      if (how == 2) client.reset();
    }
    CHECK(bed.settles());
  };
  round(2000 / kLighter);
  const int descriptors = open_descriptors();
  const int64_t before = resident_bytes();
  round(8000 / kLighter);
  CHECK(descriptors_return_to(descriptors));
  // Allocators keep some pages; 8000 leaked requests of a kilobyte would be 8 MB.
  CHECK(resident_bytes() - before < (kLighter > 1 ? 64 << 20 : 4 << 20));
  CHECK(bed.ask(get("/health/live")).status == 200);
}

TEST_CASE("heads and bodies that are no HTTP get the fitting status, and the connection ends") {
  runtime::HttpOptions options = quiet_options();
  options.limits.header_bytes = 1000;
  options.limits.body_bytes = 2000;
  HttpBed bed(endless, options);
  const std::pair<std::string, int> cases[] = {
      {"nonsense\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},  // no Host
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
      {get("/", "X: " + std::string(2000, 'a') + "\r\n"), 431},
      {"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2001\r\n\r\n", 413},
      {"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400},
      {"POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 501},
      {"POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
      {"POST /v1/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 501},
      {"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", 417},
  };
  for (const auto& [request, status] : cases) {
    CAPTURE(request);
    RawClient client(bed.server.port());
    client.send(request);
    const auto response = client.read();
    REQUIRE(response);
    CHECK(response->status == status);
    CHECK(client.closed_within(3s));
  }
  // A chunked body over the limit, which no header announces.
  RawClient client(bed.server.port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: "
      "chunked\r\n\r\n7d1\r\n" +
      std::string(2001, 'a'));
  CHECK(client.read()->status == 413);
  client.close();
  CHECK(bed.settles());
}

TEST_CASE("bodies of all requests together are bounded, by what has come of them") {
  runtime::HttpOptions options = quiet_options();
  options.limits.bodies_bytes = 3000;
  HttpBed bed([](const runtime::Generation&) { return saying("abc"); }, options);
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n\r\n";
  const std::string begin = "{\"prompt\": \"a\"", end = "}";
  // Who announces and sends nothing takes nothing from others.
  std::vector<std::unique_ptr<RawClient>> idle;
  for (int i = 0; i < 10; ++i) idle.push_back(std::make_unique<RawClient>(bed.server.port()));
  for (const auto& client : idle) client->send(head);
  RawClient first(bed.server.port()), second(bed.server.port());
  first.send(head + begin + std::string(1700, ' '));
  std::this_thread::sleep_for(20ms);
  second.send(head + begin);
  std::this_thread::sleep_for(20ms);
  second.send(std::string(1700, ' '));
  CHECK(second.read()->status == 503);
  first.send(std::string(285, ' ') + end);
  CHECK(first.read()->status == 200);
  first.send(head + begin + std::string(1985, ' ') + end);  // what was read is free again
  CHECK(first.read()->status == 200);
  first.close();
  second.close();
  idle.clear();
  CHECK(bed.settles());
}

TEST_CASE("slow heads and bodies are told 408; a silent connection is closed") {
  runtime::HttpOptions options = quiet_options();
  options.limits.header_s = 0.2;
  options.limits.body_s = 0.3;
  options.limits.idle_s = 0.4;
  HttpBed bed(endless, options);
  RawClient head(bed.server.port()), body(bed.server.port()), silent(bed.server.port()), idle(bed.server.port());
  head.send("GET /version HT");
  body.send(
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{");
  idle.send(get("/version"));
  CHECK(idle.read()->status == 200);
  CHECK(head.read()->status == 408);
  CHECK(body.read()->status == 408);
  CHECK(silent.closed_within(1s));
  CHECK(idle.closed_within(1s));
  head.close();
  body.close();
  CHECK(bed.settles());
}

namespace {

// Its vocabulary's bytes come once the test lets them.
struct HeldCodec : runtime::ByteCodec {
  explicit HeldCodec(std::shared_future<void> let_go) : runtime::ByteCodec(300), let(std::move(let_go)) {}
  std::string bytes(runtime::Token token) const override {
    let.wait_until(limit);
    return runtime::ByteCodec::bytes(token);
  }
  std::shared_future<void> let;
  std::chrono::steady_clock::time_point limit = std::chrono::steady_clock::now() + 10s;
};

}  // namespace

TEST_CASE("a long text that is made of tokens holds up nobody else") {
  std::promise<void> let;
  FakeService service(endless);
  const HeldCodec codec(let.get_future().share());
  runtime::HttpOptions options = quiet_options();
  options.threads = 1;
  runtime::HttpServer server(service, codec, options);
  server.start();
  std::string tokens = "72";
  while (tokens.size() < 20'000) tokens += ",72";
  RawClient client(server.port()), other(server.port());
  client.send(post("/detokenize", "{\"tokens\": [" + tokens + "]}"));
  std::this_thread::sleep_for(50ms);
  other.send(get("/health/live"));
  const auto begin = std::chrono::steady_clock::now();
  CHECK(other.read_until("live").find("200 OK") != std::string::npos);
  CHECK(std::chrono::steady_clock::now() - begin < 5s);
  let.set_value();
  CHECK(client.read_until("\"}").find("HHHH") != std::string::npos);
}

TEST_CASE("a client that leaves cancels its generation, streamed or not, with an end or a reset") {
  HttpBed bed(endless);
  for (const bool stream : {true, false})
    for (const bool reset : {true, false}) {
      RawClient client(bed.server.port());
      client.send(stream ? streamed() : post("/v1/completions", R"({"prompt": "hi"})"));
      if (stream) client.read_until("data: ");
      while (bed.service.open() == 0) std::this_thread::sleep_for(1ms);
      if (reset)
        client.reset();
      else
        client.close();
      CHECK(bed.settles());
    }
  CHECK(bed.service.cancelled() == 4);
  const std::string text = bed.ask(get("/metrics")).body;
  CHECK(text.find("drydock_requests_total{endpoint=\"completions\",model=\"demo\",status=\"499\"} 4\n") !=
        std::string::npos);
}

TEST_CASE("a client that does not read is cut when its buffer is full, or when it takes nothing for long") {
  const auto flood = [](const runtime::Generation& generation) {
    Script script = saying(std::string(static_cast<size_t>(generation.most_tokens), 'a'));
    script.stuck = true;
    return script;
  };
  runtime::HttpOptions options = quiet_options();
  options.limits.unsent_bytes = 64 << 10;
  {
    HttpBed bed(flood, options);
    bed.service.longest = 100'000;
    RawClient client(bed.server.port(), 4096);
    client.send(post("/v1/completions", R"({"prompt": "hi", "max_tokens": 60000, "stream": true, "logprobs": 20})"));
    while (bed.service.seen().empty()) std::this_thread::sleep_for(1ms);
    CHECK(bed.settles());
    CHECK(bed.service.cancelled() == 1);
  }
  options.limits.unsent_bytes = 64 << 20;
  options.limits.write_stall_s = 0.2;
  HttpBed bed(flood, options);
  RawClient client(bed.server.port(), 4096);
  client.send(post("/v1/completions", R"({"prompt": "hi", "max_tokens": 4000, "stream": true, "logprobs": 20})"));
  while (bed.service.seen().empty()) std::this_thread::sleep_for(1ms);
  CHECK(bed.settles());
}

TEST_CASE("connections are limited, in all and per address") {
  runtime::HttpOptions options = quiet_options();
  options.limits.connections = 3;
  HttpBed all(endless, options);
  {
    RawClient one(all.server.port()), two(all.server.port()), three(all.server.port());
    three.send(get("/version"));
    CHECK(three.read()->status == 200);
    RawClient four(all.server.port());
    CHECK(four.read()->status == 503);
  }
  CHECK(all.settles());
  CHECK(all.ask(get("/version")).status == 200);
  options = quiet_options();
  options.limits.connections_per_address = 1;
  HttpBed each(endless, options);
  RawClient one(each.server.port());
  one.send(get("/version"));
  CHECK(one.read()->status == 200);
  RawClient two(each.server.port());
  CHECK(two.read()->status == 429);
}

TEST_CASE("a flood of pipelined requests is answered in order and held within bounds") {
  HttpBed bed(endless);
  RawClient client(bed.server.port());
  std::string many;
  for (int i = 0; i < 5000; ++i) many += get("/version");
  std::thread sender([&] { client.send(many); });
  int answered = 0;
  while (answered < 5000) {
    const auto response = client.read();
    if (!response || response->status != 200) break;
    ++answered;
  }
  sender.join();
  CHECK(answered == 5000);
}

TEST_CASE("stop() with open streams, long bodies being read and clients coming: ends at once") {
  for (int round = 0; round < 5; ++round) {
    auto bed = std::make_unique<HttpBed>(endless);
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < 20; ++i) {
      clients.push_back(std::make_unique<RawClient>(bed->server.port()));
      clients.back()->send(i % 2 ? streamed()
                                 : post("/v1/completions", "{\"prompt\": \"" + std::string(100'000, 'a') + "\"}"));
    }
    const auto before = std::chrono::steady_clock::now();
    bed->server.stop();
    CHECK(std::chrono::steady_clock::now() - before < 2s);
    CHECK(bed->server.open_answers() == 0);
    for (const auto& client : clients) CHECK(client->closed_within(1s));
  }
}

TEST_CASE("who has no key is told so, but for health and metrics") {
  runtime::HttpOptions options = quiet_options();
  options.api_keys = {"sixteen-letters1"};
  HttpBed bed([](const runtime::Generation&) { return saying("abc"); }, options);
  const Response none = bed.ask(post("/v1/completions", R"({"prompt": "a"})"));
  CHECK(none.status == 401);
  CHECK(none.headers.at("www-authenticate") == "Bearer");
  CHECK(none.body.find("\"code\":\"invalid_api_key\"") != std::string::npos);
  CHECK(bed.ask(get("/v1/models", "Authorization: Bearer sixteen-letters2\r\n")).status == 401);
  CHECK(bed.ask(get("/v1/models", "Authorization: Bearer sixteen-letters1\r\n")).status == 200);
  CHECK(bed.ask(get("/health/live")).status == 200);
  CHECK(bed.ask(get("/metrics")).status == 200);
  // Without a key not even the body is waited for.
  CHECK(bed.ask("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").status == 401);
}
