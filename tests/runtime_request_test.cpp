// Requests' bodies into generations, tokens' bytes into text, and the small readers of headers.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "core/json.h"
#include "runtime/answer_text.h"
#include "runtime/api_error.h"
#include "runtime/api_keys.h"
#include "runtime/byte_codec.h"
#include "runtime/completion_request.h"
#include "runtime/completion_writer.h"
#include "runtime/trace_context.h"
#include "tests/effort.h"

using namespace drydock;
using namespace drydock::runtime;

namespace {

CompletionRequest parse(std::string_view body, CompletionKind kind = CompletionKind::text) {
  static const ByteCodec codec;
  static const std::vector<std::string> models = {"demo", "other"};
  core::Random random(1);
  return parse_completion(kind, body, {codec, models, 100, 4}, random);
}

// The field that a refusal names, and its status.
std::pair<std::string, int> refused(std::string_view body, CompletionKind kind = CompletionKind::text) {
  try {
    parse(body, kind);
  } catch (const ApiError& error) {
    const core::Json json = core::parse_json(error.json(), "error");
    CHECK(json["error"]["message"] == error.what());
    return {json["error"]["param"].is_null() ? "" : json["error"]["param"].get<std::string>(), error.status()};
  }
  return {"accepted", 200};
}

// Pushes `text` in pieces of `step` bytes.
std::string shown(const std::string& text, const std::vector<std::string>& stops, size_t step, bool& stopped) {
  AnswerText answer(stops);
  std::string out;
  stopped = false;
  for (size_t at = 0; at < text.size() && !stopped; at += step) stopped = answer.push(text.substr(at, step), out);
  if (!stopped) answer.finish(out);
  return out;
}

}  // namespace

TEST_CASE("a completion's fields become a generation") {
  const CompletionRequest request = parse(R"({"model": "other", "prompt": "abc", "max_tokens": 7, "temperature": 0.5,
    "top_p": 0.25, "top_k": 3, "seed": -1, "stop": ["x", "yz"], "logprobs": 2, "stream": true, "user": "me",
    "stream_options": {"include_usage": true, "else": 1}, "timeout": 1.5, "unknown": {"a": [1]}, "n": 2,
    "stop_token_ids": [65], "presence_penalty": 0, "logit_bias": {}, "suffix": null})");
  REQUIRE(request.generations.size() == 2);
  const Generation& first = request.generations[0];
  CHECK(first.prompt == std::vector<Token>{'a', 'b', 'c'});
  CHECK(first.most_tokens == 7);
  CHECK(first.sampling.temperature == 0.5f);
  CHECK(first.sampling.top_p == 0.25f);
  CHECK(first.sampling.top_k == 3);
  CHECK(first.sampling.seed == ~uint64_t{0});
  CHECK(first.sampling.logprobs == 2);
  CHECK(first.stop_tokens == std::vector<Token>{65});
  CHECK(request.generations[1].sampling.seed != first.sampling.seed);
  CHECK(request.stops == std::vector<std::string>{"x", "yz"});
  CHECK(request.stream);
  CHECK(request.include_usage);
  CHECK(request.timeout_s == 1.5);
  CHECK(request.model == "other");
  CHECK(request.prompt_tokens == 3);
}

TEST_CASE("prompts may be texts, tokens, or lists of them") {
  CHECK(parse(R"({"prompt": [1, 2]})").generations.size() == 1);
  const CompletionRequest texts = parse(R"({"prompt": ["ab", "c"], "n": 2, "echo": true})");
  CHECK(texts.generations.size() == 4);
  CHECK(texts.generations[2].prompt == std::vector<Token>{'c'});
  CHECK(texts.prompt_tokens == 3);
  CHECK(texts.echoes == std::vector<std::string>{"ab", "ab", "c", "c"});
  CHECK(parse(R"({"prompt": [[104, 105], [1]], "echo": true})").echoes[0] == "hi");
  // 16 by default, or what is left of 100 tokens.
  CHECK(parse(R"({"prompt": "a"})").generations[0].most_tokens == 16);
  const std::string long_prompt(90, 'a');
  CHECK(parse("{\"prompt\": \"" + long_prompt + "\"}").generations[0].most_tokens == 10);
}

TEST_CASE("chats: parts of text, roles, defaults") {
  const auto chat = [](std::string_view messages, std::string_view more = "") {
    return parse("{\"messages\": " + std::string(messages) + std::string(more) + "}", CompletionKind::chat);
  };
  const CompletionRequest request = chat(
      R"([{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])",
      R"(, "logprobs": true, "top_logprobs": 3, "temperature": null, "top_p": 0, "top_k": -1)");
  const auto& prompt = request.generations[0].prompt;
  const std::string text(prompt.begin(), prompt.end());
  CHECK(text == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n");
  CHECK(request.generations[0].most_tokens == 100 - static_cast<int64_t>(text.size()));
  CHECK(request.logprobs == 3);
  CHECK(request.generations[0].sampling.top_k == 1);  // top_p 0: the most likely
  CHECK(chat(R"([{"role": "user", "content": "a"}])", R"(, "logprobs": true)").logprobs == 0);
  CHECK(chat(R"([{"role": "user", "content": "a"}])", R"(, "max_tokens": 3, "max_completion_tokens": 4)")
            .generations[0]
            .most_tokens == 4);
}

TEST_CASE("what can't be is refused, naming the field") {
  const std::pair<const char*, const char*> cases[] = {
      {R"([])", ""},
      {R"({"prompt": "a",})", ""},
      {R"({"prompt": "a", "prompt": "b"})", ""},
      {R"({})", "prompt"},
      {R"({"prompt": ""})", "prompt"},
      {R"({"prompt": []})", "prompt"},
      {R"({"prompt": 5})", "prompt"},
      {R"({"prompt": ["a", 5]})", "prompt"},
      {R"({"prompt": [256]})", "prompt"},
      {R"({"prompt": [-1]})", "prompt"},
      {R"({"prompt": [18446744073709551615]})", "prompt"},
      {R"({"prompt": [1.5]})", "prompt"},
      {R"({"prompt": ["a", "b", "c", "d", "e"]})", "prompt"},
      {R"({"prompt": "a", "model": 5})", "model"},
      {R"({"prompt": "a", "max_tokens": 0})", "max_tokens"},
      {R"({"prompt": "a", "max_tokens": "5"})", "max_tokens"},
      {R"({"prompt": "a", "max_tokens": true})", "max_tokens"},
      {R"({"prompt": "a", "max_tokens": 100})", "max_tokens"},
      {R"({"prompt": "a", "max_completion_tokens": 1e30})", "max_completion_tokens"},
      {R"({"prompt": "a", "temperature": 2.5})", "temperature"},
      {R"({"prompt": "a", "temperature": "hot"})", "temperature"},
      {R"({"prompt": "a", "top_p": -0.1})", "top_p"},
      {R"({"prompt": "a", "top_k": 1.5})", "top_k"},
      {R"({"prompt": "a", "seed": 1e3})", "seed"},
      {R"({"prompt": "a", "stop": ["a", "b", "c", "d", "e"]})", "stop"},
      {R"({"prompt": "a", "stop": ""})", "stop"},
      {R"({"prompt": "a", "stop": [1]})", "stop"},
      {R"({"prompt": "a", "stop": {"a": "b"}})", "stop"},
      {R"({"prompt": "a", "logprobs": 21})", "logprobs"},
      {R"({"prompt": "a", "logprobs": true})", "logprobs"},
      {R"({"prompt": "a", "stream": 1})", "stream"},
      {R"({"prompt": "a", "stream_options": {}})", "stream_options"},
      {R"({"prompt": "a", "stream": true, "stream_options": {"include_usage": 1}})", "stream_options.include_usage"},
      {R"({"prompt": "a", "user": 1})", "user"},
      {R"({"prompt": "a", "n": 5})", "n"},
      {R"({"prompt": "a", "n": 2, "best_of": 3})", "best_of"},
      {R"({"prompt": "a", "timeout": 0})", "timeout"},
      {R"({"prompt": "a", "ignore_eos": "yes"})", "ignore_eos"},
      {R"({"prompt": "a", "stop_token_ids": [256]})", "stop_token_ids"},
      {R"({"prompt": "a", "echo": true, "logprobs": 1})", "echo"},
      {R"({"prompt": "a", "presence_penalty": 0.5})", "presence_penalty"},
      {R"({"prompt": "a", "logit_bias": {"5": 1}})", "logit_bias"},
      {R"({"prompt": "a", "suffix": "x"})", "suffix"},
      {R"({"prompt": "a", "response_format": {"type": "json_object"}})", "response_format"},
      {R"({"prompt": "a", "response_format": "text"})", "response_format"}};
  for (const auto& [body, field] : cases) {
    CAPTURE(body);
    CHECK(refused(body) == std::pair<std::string, int>(field, 400));
  }
  CHECK(refused(R"({"prompt": "a", "model": "none"})") == std::pair<std::string, int>("model", 404));
  const std::string deep = "{\"prompt\": \"a\", \"x\": " + std::string(200, '[') + std::string(200, ']') + "}";
  CHECK(refused(deep) == std::pair<std::string, int>("", 400));
}

TEST_CASE("chats that can't be are refused") {
  for (const char* messages :
       {"[]", "{}", "\"hi\"", "[5]", "[{}]", R"([{"role": "user"}])", R"([{"role": 5, "content": "a"}])",
        R"([{"role": "user", "content": 5}])", R"([{"role": "user", "content": [5]}])",
        R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}])"}) {
    CAPTURE(messages);
    CHECK(refused("{\"messages\": " + std::string(messages) + "}", CompletionKind::chat) ==
          std::pair<std::string, int>("messages", 400));
  }
  const std::string hello = R"({"messages": [{"role": "user", "content": "a"}], )";
  CHECK(refused(hello + R"("top_logprobs": 2})", CompletionKind::chat).first == "top_logprobs");
  CHECK(refused(hello + R"("echo": true})", CompletionKind::chat).first == "echo");
  CHECK(refused(hello + R"("tools": [{"type": "function"}]})", CompletionKind::chat).first == "tools");
}

TEST_CASE("too long a prompt says so in OpenAI's code") {
  try {
    parse("{\"prompt\": \"" + std::string(100, 'a') + "\"}");
    FAIL("accepted");
  } catch (const ApiError& error) {
    CHECK(error.code() == "context_length_exceeded");
    CHECK(std::string(error.what()).find("100 tokens") != std::string::npos);
  }
}

TEST_CASE("stop strings are found wherever tokens end, and nothing of them is shown") {
  struct Case {
    std::string text;
    std::vector<std::string> stops;
    std::string want;
    bool stopped;
  };
  const Case cases[] = {
      {"hello world", {"wor"}, "hello ", true},
      {"hello world", {"worm"}, "hello world", false},
      {"hello wor", {"world"}, "hello wor", false},  // an end that might have become one
      {"abcd", {"abcd", "bc"}, "a", true},           // "bc" is complete first
      {"xabc", {"bc", "abc"}, "x", true},            // both at once: the longer
      {"aaab", {"aab"}, "a", true},                  // a start within a start
      {"abababac", {"ababac"}, "ab", true},          // likewise, found by Knuth, Morris and Pratt's border
      {"\xC3\xA9t\xC3\xA9", {"\xC3\xA9", "t"}, "", true},
      {"one\n\ntwo", {"\n\n"}, "one", true},
  };
  for (const Case& c : cases)
    for (size_t step = 1; step <= c.text.size(); ++step) {
      CAPTURE(c.text);
      CAPTURE(step);
      bool stopped = false;
      CHECK(shown(c.text, c.stops, step, stopped) == c.want);
      CHECK(stopped == c.stopped);
    }
}

TEST_CASE("stop strings against a plain search, on random texts over two letters") {
  core::Random random(7);
  for (int round = 0; round < 2000 / tests::kLighter; ++round) {
    const auto word = [&](int64_t least, int64_t most) {
      std::string out;
      for (int64_t n = random.integer(least, most); n > 0; --n) out += static_cast<char>('a' + random.integer(0, 1));
      return out;
    };
    const std::string text = word(0, 40);
    const std::vector<std::string> stops = {word(1, 6), word(1, 6)};
    // The stop that ends first; of two that end at once, the longer one.
    size_t end = std::string::npos, begin = text.size();
    for (const std::string& stop : stops)
      if (const size_t at = text.find(stop); at != std::string::npos)
        if (at + stop.size() < end || (at + stop.size() == end && at < begin)) end = at + stop.size(), begin = at;
    bool stopped = false;
    CHECK(shown(text, stops, static_cast<size_t>(random.integer(1, 5)), stopped) == text.substr(0, begin));
    CHECK(stopped == (end != std::string::npos));
  }
}

TEST_CASE("characters come whole, and what is none becomes U+FFFD") {
  const std::string r = "\xEF\xBF\xBD";
  const std::pair<std::string, std::string> cases[] = {
      {"na\xC3\xAFve \xF0\x9F\x9A\xA2", "na\xC3\xAFve \xF0\x9F\x9A\xA2"},
      // Table 3-8 of the Unicode Standard 15: maximal subparts, one replacement each.
      {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "a" + r + r + r + "b" + r + "c" + r + r + "d"},
      {"\xC0\xAF", r + r},                  // overlong
      {"\xED\xA0\x80", r + r + r},          // a surrogate
      {"\xF4\x90\x80\x80", r + r + r + r},  // beyond U+10FFFF
      {"\xF0\x9F\x9A", r},                  // ends within a character
      {"\xFF\xFE", r + r},
      {std::string("a\0b", 3), std::string("a\0b", 3)},
  };
  for (const auto& [bytes, want] : cases)
    for (size_t step = 1; step <= bytes.size(); ++step) {
      bool stopped = false;
      CHECK(shown(bytes, {}, step, stopped) == want);
    }
  AnswerText text({});
  std::string out;
  text.push("\xF0\x9F", out);
  CHECK(out.empty());
  text.push("\x9A\xA2", out);
  CHECK(out == "\xF0\x9F\x9A\xA2");
  CHECK(text.characters() == 1);
}

TEST_CASE("traceparent") {
  const std::string good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  CHECK(valid_trace_parent(good));
  CHECK(valid_trace_parent("cc" + good.substr(2) + "-what-comes-later"));
  CHECK(trace_id(good) == "0af7651916cd43dd8448eb211c80319c");
  for (std::string bad : {"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
                          "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                          "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                          "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                          "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
                          "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01"})
    CHECK_FALSE(valid_trace_parent(bad));
  CHECK_FALSE(valid_trace_parent("cc" + good.substr(2) + "-a\r\nb"));
  core::Random random(3);
  for (int i = 0; i < 100; ++i) CHECK(valid_trace_parent(new_trace_parent(random)));
  CHECK(new_id("cmpl-", random) != new_id("cmpl-", random));
}

TEST_CASE("keys") {
  const std::vector<std::string> keys =
      split_api_keys(" sixteen-letters1 , another-of-many-letters,", "DRYDOCK_API_KEYS");
  REQUIRE(keys.size() == 2);
  CHECK(bearer_allowed("Bearer sixteen-letters1", keys));
  CHECK(bearer_allowed("bearer another-of-many-letters", keys));
  for (const char* bad : {"", "Bearer", "Bearer ", "Bearer sixteen-letters", "Bearer sixteen-letters12",
                          "Basic sixteen-letters1", "sixteen-letters1", "Bearer sixteen-letters1sixteen-letters1"})
    CHECK_FALSE(bearer_allowed(bad, keys));
  CHECK_THROWS_WITH_AS(split_api_keys("short", "X"), doctest::Contains("X: key 1"), core::Error);
  CHECK_THROWS_AS(split_api_keys(" , ", "X"), core::Error);
  CHECK_THROWS_AS(split_api_keys("sixteen letters with blanks", "X"), core::Error);
}

TEST_CASE("tokens' names in log-probabilities") {
  CHECK(token_text(5, "caf\xC3\xA9") == "caf\xC3\xA9");
  CHECK(token_text(5, "\xC3") == "bytes:\\xc3");
  CHECK(token_text(7, "") == "token_id:7");
}

TEST_CASE("tokenize and detokenize") {
  const ByteCodec codec;
  const std::vector<std::string> models = {"demo"};
  const CompletionRules rules{codec, models, 100, 4};
  CHECK(tokenize(R"({"prompt": "hi"})", rules) == R"({"count":2,"max_model_len":100,"tokens":[104,105]})");
  CHECK(detokenize(R"({"tokens": [104, 105]})", rules) == R"({"prompt":"hi"})");
  CHECK_THROWS_AS(detokenize(R"({"tokens": [256]})", rules), ApiError);
  CHECK_THROWS_AS(detokenize(R"({"tokens": "hi"})", rules), ApiError);
}
