// The server as its clients see it.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "runtime/trace_context.h"
#include "tests/runtime_http_bed.h"

using namespace drydock;
using namespace drydock::tests;
using namespace std::chrono_literals;

namespace {

core::Json json(const std::string& text) { return core::parse_json(text, "response"); }

std::string completion(std::string_view fields = "") {
  return post("/v1/completions", "{\"prompt\": \"hi\", \"max_tokens\": 1000" + std::string(fields) + "}");
}

std::string chat(std::string_view fields = "") {
  return post(
      "/v1/chat/completions",
      "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"max_tokens\": 1000" + std::string(fields) + "}");
}

Script hello(const runtime::Generation&) { return saying("Hello \xF0\x9F\x9A\xA2!"); }

}  // namespace

TEST_CASE("a completion, whole") {
  HttpBed bed(hello);
  const Response response = bed.ask(completion());
  CHECK(response.status == 200);
  const core::Json body = json(response.body);
  CHECK(body["object"] == "text_completion");
  CHECK(body["model"] == "demo");
  CHECK(body["choices"][0]["text"] == "Hello \xF0\x9F\x9A\xA2!");
  CHECK(body["choices"][0]["finish_reason"] == "stop");
  CHECK(body["choices"][0]["logprobs"].is_null());
  // A byte is a token: "hi"; "Hello ", four bytes of the ship and "!".
  CHECK(body["usage"] == json(R"({"prompt_tokens": 2, "completion_tokens": 11, "total_tokens": 13})"));
  CHECK(response.headers.at("x-request-id") == body["id"].get<std::string>());
  CHECK(runtime::valid_trace_parent(response.headers.at("traceparent")));
}

TEST_CASE("a chat, streamed: role first, text in whole characters, usage, [DONE]") {
  HttpBed bed([](const runtime::Generation&) { return saying("a\xF0\x9F\x9A\xA2z", 1ms); });
  const Response response = bed.ask(chat(R"(, "stream": true, "stream_options": {"include_usage": true})"));
  CHECK(response.status == 200);
  CHECK(response.headers.at("content-type") == "text/event-stream; charset=utf-8");
  std::vector<std::string> events = response.events();
  REQUIRE(events.size() >= 4);
  CHECK(events.back() == "[DONE]");
  CHECK(json(events[events.size() - 2])["usage"]["completion_tokens"] == 6);
  CHECK(json(events[events.size() - 2])["choices"].empty());
  CHECK(json(events[0])["choices"][0]["delta"]["role"] == "assistant");
  std::string text;
  for (size_t i = 0; i + 2 < events.size(); ++i) {
    const core::Json event = json(events[i]);  // throws where a character is cut
    CHECK(event["object"] == "chat.completion.chunk");
    CHECK(event["usage"].is_null());
    text += event["choices"][0]["delta"].value("content", "");
    CHECK((event["choices"][0]["finish_reason"] == "stop") == (i + 3 == events.size()));
  }
  CHECK(text == "a\xF0\x9F\x9A\xA2z");
}

TEST_CASE("a stop string across tokens ends the answer, is not shown, and cancels the generation") {
  HttpBed bed([](const runtime::Generation&) {
    Script script = saying("one STOP two", 1ms);
    script.stuck = true;
    return script;
  });
  for (const char* stream : {"false", "true"}) {
    const Response response =
        bed.ask(completion(std::string(R"(, "stop": ["XX", "STOP"], "logprobs": 0, "stream": )") + stream));
    CHECK(response.status == 200);
    std::string text, tokens;
    core::Json last;
    if (std::string(stream) == "true") {
      for (const std::string& event : response.events())
        if (event != "[DONE]") {
          last = json(event)["choices"][0];
          text += last["text"];
          if (!last["logprobs"].is_null())
            for (const auto& token : last["logprobs"]["tokens"]) tokens += token;
        }
    } else {
      last = json(response.body)["choices"][0];
      text = last["text"];
      for (const auto& token : last["logprobs"]["tokens"]) tokens += token;
    }
    CHECK(text == "one ");
    CHECK(tokens == "one ");
    CHECK(last["finish_reason"] == "stop");
  }
  CHECK(bed.settles());
  CHECK(bed.service.cancelled() == 2);
}

TEST_CASE("log-probabilities of a chat and of a completion") {
  HttpBed bed([](const runtime::Generation&) { return saying("a\xC3\xA9"); });
  const core::Json content =
      json(bed.ask(chat(R"(, "logprobs": true, "top_logprobs": 2)")).body)["choices"][0]["logprobs"]["content"];
  REQUIRE(content.size() == 3);
  CHECK(content[0] == json(R"({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [
    {"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -1.5, "bytes": [98]}]})"));
  CHECK(content[1]["token"] == "bytes:\\xc3");
  CHECK(content[1]["bytes"] == json("[195]"));
  const core::Json legacy = json(bed.ask(completion(R"(, "logprobs": 1)")).body)["choices"][0]["logprobs"];
  CHECK(legacy["tokens"] == json(R"(["a", "bytes:\\xc3", "bytes:\\xa9"])"));
  CHECK(legacy["token_logprobs"] == json("[-0.5, -0.5, -0.5]"));
  CHECK(legacy["text_offset"] == json("[0, 1, 1]"));
  CHECK(legacy["top_logprobs"][0] == json(R"({"a": -0.5})"));
}

TEST_CASE("several prompts and copies are choices; echo repeats the prompt") {
  HttpBed bed([](const runtime::Generation& generation) {
    return saying(std::string(1, static_cast<char>(generation.prompt[0] + 1)));
  });
  const core::Json body =
      json(bed.ask(post("/v1/completions", R"({"prompt": ["a", "x"], "n": 2, "echo": true})")).body);
  REQUIRE(body["choices"].size() == 4);
  const char* want[] = {"ab", "ab", "xy", "xy"};
  for (size_t i = 0; i < 4; ++i) {
    CHECK(body["choices"][i]["index"] == i);
    CHECK(body["choices"][i]["text"] == want[i]);
  }
  const Response streamed = bed.ask(post("/v1/completions", R"({"prompt": ["a", "x"], "stream": true})"));
  std::string texts[2];
  for (const std::string& event : streamed.events())
    if (event != "[DONE]") {
      const core::Json choice = json(event)["choices"][0];
      texts[choice["index"].get<size_t>()] += choice["text"];
    }
  CHECK(texts[0] == "b");
  CHECK(texts[1] == "y");
}

TEST_CASE("failures: before the first token by status, later by an event") {
  HttpBed bed([](const runtime::Generation& generation) {
    const std::string prompt(generation.prompt.begin(), generation.prompt.end());
    Script script = saying(prompt.find("late") != std::string::npos ? "ab" : "", 20ms);
    script.first = 5ms;
    script.finish = runtime::Finish::failed;
    script.reason = "the device is lost";
    if (prompt.find("busy") != std::string::npos) script.admission = runtime::Admission::overloaded;
    if (prompt.find("large") != std::string::npos) script.admission = runtime::Admission::too_long;
    if (prompt.find("stuck") != std::string::npos) script.stuck = true;
    return script;
  });
  const auto ask = [&](const char* prompt, const char* more = "", const char* headers = "") {
    return bed.ask(post("/v1/completions", "{\"prompt\": \"" + std::string(prompt) + "\"" + more + "}", headers));
  };
  for (const char* stream : {"", ", \"stream\": true"}) {
    const Response early = ask("early", stream);
    CHECK(early.status == 500);
    CHECK(json(early.body)["error"]["message"] == "the request failed: the device is lost");
  }
  CHECK(ask("late").status == 500);
  const Response late = ask("late", ", \"stream\": true");
  CHECK(late.status == 200);
  const auto events = late.events();
  CHECK(json(events[events.size() - 2])["error"]["code"] == "failed");
  CHECK(events.back() == "[DONE]");
  const Response busy = ask("busy");
  CHECK(busy.status == 429);
  CHECK(busy.headers.at("retry-after") == "3");  // 2.5 s, rounded up
  CHECK(json(busy.body)["error"]["type"] == "rate_limit_error");
  CHECK(ask("large").status == 400);
  CHECK(ask("stuck", ", \"timeout\": 0.05").status == 504);
  CHECK(ask("stuck", "", "X-Request-Timeout-S: 0.05\r\n").status == 504);
  CHECK(ask("stuck", "", "X-Request-Timeout-S: soon\r\n").status == 400);
  CHECK(bed.settles());
}

TEST_CASE("other paths, methods and types") {
  HttpBed bed(hello);
  CHECK(json(bed.ask(get("/v1/models")).body)["data"][0]["id"] == "demo");
  CHECK(json(bed.ask(get("/v1/models/demo")).body)["max_model_len"] == 4096);
  CHECK(bed.ask(get("/v1/models/none")).status == 404);
  CHECK(bed.ask(get("/health/live")).status == 200);
  CHECK(bed.ask(get("/health/ready?x=1")).status == 200);
  CHECK(bed.ask(get("http://anywhere/health/ready?x=1")).status == 200);
  CHECK(bed.ask(get("http://anywhere")).status == 404);
  CHECK(json(bed.ask(get("/version")).body)["version"] == "0");
  CHECK(bed.ask(post("/tokenize", R"({"prompt": "a"})")).status == 200);
  CHECK(bed.ask(post("/detokenize", R"({"tokens": [97]})")).status == 200);
  for (const char* path : {"/", "/v1", "/../../etc/passwd", "/v1/completions/", "//metrics", "/%2e%2e/etc"})
    CHECK(bed.ask(get(path)).status == 404);
  const Response wrong = bed.ask(get("/v1/completions"));
  CHECK(wrong.status == 405);
  CHECK(wrong.headers.at("allow") == "POST");
  CHECK(bed.ask(post("/metrics", "{}")).status == 405);
  CHECK(bed.ask("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}").status == 415);
  CHECK(bed.ask("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}")
            .status == 415);
  CHECK(bed.ask(post("/v1/completions", "{}", "Content-Encoding: gzip\r\n")).status == 415);
  RawClient client(bed.server.port());
  client.send("HEAD /health/live HTTP/1.1\r\nHost: h\r\n\r\n");
  const auto head = client.read(true);
  REQUIRE(head);
  CHECK(head->headers.at("content-length") == "17");  // {"status":"live"}
  client.send(get("/version"));                       // nothing of a body is in the way
  CHECK(client.read()->status == 200);
  bed.service.is_ready = false;
  CHECK(bed.ask(get("/health/ready")).status == 503);
}

TEST_CASE("connections: kept, pipelined, HTTP/1.0, expectations, ids") {
  HttpBed bed(hello);
  RawClient client(bed.server.port());
  client.send(completion() + get("/version") + completion(R"(, "stream": true)") + get("/health/live"));
  CHECK(json(client.read()->body)["object"] == "text_completion");
  CHECK(json(client.read()->body)["version"] == "0");
  CHECK(client.read()->events().back() == "[DONE]");
  CHECK(json(client.read()->body)["status"] == "live");
  for (const char c : completion()) client.send(std::string(1, c));  // byte by byte
  CHECK(client.read()->status == 200);
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5\r\n{\"pro\r\na\r\nmpt\": \"a\"}\r\n0\r\n\r\n");
  CHECK(client.read()->status == 200);
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nExpect: "
      "100-continue\r\nContent-Length: 15\r\n\r\n");
  CHECK(client.read()->status == 100);
  client.send("{\"prompt\": \"a\"}");
  CHECK(client.read()->status == 200);
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  client.send(post("/v1/completions", R"({"prompt": "a"})",
                   "X-Request-Id: mine-1\r\ntraceparent: " + trace + "\r\nConnection: close\r\n"));
  const auto last = client.read();
  CHECK(last->headers.at("x-request-id") == "mine-1");
  CHECK(last->headers.at("traceparent") == trace);
  CHECK(last->headers.at("connection") == "close");
  CHECK(bed.service.seen().back().trace_parent == trace);
  CHECK(client.closed_within(1s));
  RawClient old(bed.server.port());
  const std::string body = "{\"prompt\": \"hi\", \"stream\": true}";
  old.send("POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body);
  const auto plain = old.read();  // no chunks: the end of the connection is that of the body
  CHECK_FALSE(plain->headers.contains("transfer-encoding"));
  CHECK(plain->events().back() == "[DONE]");
}

TEST_CASE("metrics count what was answered") {
  HttpBed bed([](const runtime::Generation& generation) {
    Script script = saying("abcde", 3ms);
    if (generation.prompt[0] == 'x') script.admission = runtime::Admission::overloaded;
    return script;
  });
  bed.ask(post("/v1/completions", R"({"prompt": "abc"})"));
  bed.ask(chat(R"(, "stream": true)"));
  bed.ask(post("/v1/completions", R"({"prompt": "x"})"));
  const std::string text = bed.ask(get("/metrics")).body;
  for (const std::string line :
       {"drydock_requests_total{endpoint=\"completions\",model=\"demo\",status=\"200\"} 1\n",
        "drydock_requests_total{endpoint=\"completions\",model=\"demo\",status=\"429\"} 1\n",
        "drydock_requests_total{endpoint=\"chat_completions\",model=\"demo\",status=\"200\"} 1\n",
        "drydock_time_to_first_token_seconds_count{model=\"demo\"} 2\n",
        "drydock_inter_token_latency_seconds_count{model=\"demo\"} 8\n",  // two answers of five tokens
        "drydock_generation_tokens_sum{model=\"demo\"} 10\n",
        "drydock_prompt_tokens_bucket{model=\"demo\",le=\"5\"} 1\n",
        "drydock_kv_cache_usage_ratio{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 0.25\n",
        "drydock_worker_up{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 1\n",
        "drydock_requests_waiting{model=\"demo\",role=\"router\",worker=\"router\"} 3\n",
        "drydock_preemptions_total{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 5\n",
        "drydock_prefix_cache_hit_tokens_total{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 400\n",
        "drydock_prefix_cache_query_tokens_total{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 1000\n",
        "drydock_spec_decode_num_drafts_total{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 20\n",
        "drydock_spec_decode_num_draft_tokens_total{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 80\n",
        "drydock_spec_decode_num_accepted_tokens_total{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 50\n",
        "drydock_worker_restarts_total{model=\"demo\",role=\"decode\",worker=\"decode/0\"} 2\n",
        "drydock_requests_migrated_total{model=\"demo\"} 7\n", "drydock_kv_transfers_total{model=\"demo\"} 11\n"}) {
    CAPTURE(line);
    CHECK(text.find(line) != std::string::npos);
  }
}

TEST_CASE("a line of JSON a request on stderr, with ids and without a word of prompts and answers") {
  std::FILE* file = std::tmpfile();
  REQUIRE(file);
  std::fflush(stderr);
  const int standard_error = dup(2);
  dup2(fileno(file), 2);
  {
    runtime::HttpOptions options = quiet_options();
    options.log.level = runtime::LogLevel::info;
    HttpBed bed([](const runtime::Generation&) { return saying("secret-answer"); }, options);
    bed.ask(post("/v1/completions", R"({"prompt": "secret-prompt"})",
                 "X-Request-Id: mine-2\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"));
    bed.ask(post("/v1/completions", R"({"prompt": "secret-prompt", "max_tokens": "secret-field"})",
                 "X-Request-Id: a\tb\r\n"));
    bed.ask(get("/health/live"));  // at level debug only
  }
  dup2(standard_error, 2);
  close(standard_error);
  std::rewind(file);
  std::string text(1 << 16, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  CHECK(text.find("secret") == std::string::npos);
  REQUIRE(std::count(text.begin(), text.end(), '\n') == 2);
  const core::Json first = json(text.substr(0, text.find('\n'))), second = json(text.substr(text.find('\n') + 1));
  CHECK(first["event"] == "request");
  CHECK(first["level"] == "info");
  CHECK(first["request_id"] == "mine-2");
  CHECK(first["trace_id"] == "0af7651916cd43dd8448eb211c80319c");
  CHECK(first["status"] == 200);
  CHECK(first["prompt_tokens"] == 13);
  CHECK(first["generated_tokens"] == 13);
  CHECK(first["finish"] == "stop");
  CHECK(second["status"] == 400);
  CHECK(
      second["request_id"].get<std::string>().starts_with("cmpl-"));  // the one given has a character that ids have not
}

TEST_CASE("promtool accepts the exposition") {
  if (std::system("command -v promtool >/dev/null") != 0) {
    MESSAGE("SKIPPED: no promtool (Debian package prometheus)");
    return;
  }
  HttpBed bed(hello);
  bed.ask(completion());
  FILE* promtool = popen("promtool check metrics 2>&1", "w");
  REQUIRE(promtool);
  const std::string text = bed.ask(get("/metrics")).body;
  CHECK(std::fwrite(text.data(), 1, text.size(), promtool) == text.size());
  CHECK(pclose(promtool) == 0);
}

TEST_CASE("drain: open streams finish, new requests are told 503") {
  HttpBed bed([](const runtime::Generation&) { return saying("abcdefghij", 20ms); });
  RawClient streaming(bed.server.port());
  streaming.send(completion(R"(, "stream": true)"));
  streaming.read_until("data: ");
  CHECK_FALSE(bed.server.drain(0));
  const Response refused = bed.ask(completion());
  CHECK(refused.status == 503);
  CHECK(refused.headers.contains("retry-after"));
  CHECK(refused.headers.at("connection") == "close");
  CHECK(bed.ask(get("/health/ready")).status == 503);
  CHECK(bed.ask(get("/health/live")).status == 200);
  CHECK(bed.server.drain(5));
  const auto whole = streaming.read();
  REQUIRE(whole);
  CHECK(whole->events().back() == "[DONE]");
  streaming.close();
  CHECK(bed.settles());
}

TEST_CASE("drain waits for what a slow client has not taken yet") {
  HttpBed bed([](const runtime::Generation&) { return saying(std::string(4000, 'a')); });
  RawClient client(bed.server.port(), 4096);
  client.send(completion(R"(, "n": 4, "logprobs": 20)"));  // some 4 MB
  while (bed.service.open() > 0 || bed.service.seen().size() < 4) std::this_thread::sleep_for(1ms);
  while (bed.server.open_answers() > 0) std::this_thread::sleep_for(1ms);
  CHECK_FALSE(bed.server.drain(0.05));
  std::optional<Response> response;
  std::thread reader([&] { response = client.read(); });
  CHECK(bed.server.drain(5));
  bed.server.stop();
  reader.join();
  REQUIRE(response);
  CHECK(json(response->body)["choices"].size() == 4);
}

TEST_CASE("a long prompt is read by another thread, to the same answer") {
  HttpBed bed([](const runtime::Generation& generation) { return saying(std::to_string(generation.prompt.size())); });
  bed.service.longest = 200'000;
  const std::string prompt(100'000, 'a');
  const Response response = bed.ask(post("/v1/completions", "{\"prompt\": \"" + prompt + "\"}"));
  CHECK(json(response.body)["choices"][0]["text"] == "100000");
  CHECK(bed.ask(post("/v1/completions", "{\"prompt\": \"" + prompt + "\", \"top_p\": 7}")).status == 400);
}

TEST_CASE("options that can't be are refused") {
  FakeService service(hello);
  const runtime::ByteCodec codec;
  runtime::HttpOptions options = quiet_options();
  options.models.clear();
  CHECK_THROWS_AS(runtime::HttpServer(service, codec, options), core::Error);
  options = quiet_options();
  options.host = "no.such.host";
  runtime::HttpServer nowhere(service, codec, options);
  CHECK_THROWS_WITH_AS(nowhere.start(), doctest::Contains("no.such.host"), core::Error);
  HttpBed bed(hello);
  options = quiet_options();
  options.port = bed.server.port();
  runtime::HttpServer second(service, codec, options);
  CHECK_THROWS_WITH_AS(second.start(), doctest::Contains("can't listen"), core::Error);
}
