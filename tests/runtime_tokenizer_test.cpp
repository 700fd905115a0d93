#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/file.h"
#include "core/json.h"
#include "runtime/bpe.h"
#include "runtime/chat_template.h"
#include "runtime/special_tokens.h"
#include "runtime/split_pattern.h"
#include "runtime/tokenizer.h"
#include "runtime/tokenizer_file.h"
#include "runtime/unicode_text.h"

using namespace drydock;
using namespace drydock::runtime;

namespace {

std::filesystem::path tokenizers_dir() { return std::filesystem::path(DRYDOCK_SOURCE_DIR) / "tests/golden/tokenizers"; }

const core::Json& tokenizer_golden() {
  static const core::Json golden = core::read_json(tokenizers_dir() / "golden.json");
  return golden;
}

std::string text_of(const TextCodec& codec, const std::vector<Token>& tokens) {
  std::string out;
  for (const Token token : tokens) out += codec.bytes(token);
  return out;
}

}  // namespace

TEST_CASE("tokens are those of the tokenizers library, for hard texts, specials taken or not") {
  const auto texts = tokenizer_golden().at("texts").get<std::vector<std::string>>();
  REQUIRE(texts.size() > 200);
  for (const char* family : {"llama3", "qwen3"}) {
    const auto codec = load_tokenizer(tokenizers_dir() / family);
    const core::Json& golden = tokenizer_golden().at(family);
    for (size_t i = 0; i < texts.size(); ++i) {
      CAPTURE(texts[i]);
      CHECK(codec->encode(texts[i], false) == golden.at("plain").at(i).get<std::vector<Token>>());
      CHECK(codec->encode(texts[i], true) == golden.at("specials").at(i).get<std::vector<Token>>());
      // Llama 3's text is its tokens' bytes; Qwen3's is that in normalization form C.
      if (family == std::string("llama3")) CHECK(text_of(*codec, codec->encode(texts[i], false)) == texts[i]);
    }
    std::vector<Token> with_begin(codec->begin_tokens().begin(), codec->begin_tokens().end());
    for (const Token token : codec->encode("x", false)) with_begin.push_back(token);
    CHECK(with_begin == golden.at("with_begin").get<std::vector<Token>>());
  }
}

TEST_CASE("chats are written as transformers' apply_chat_template writes them") {
  for (const char* family : {"llama3", "qwen3"}) {
    const auto codec = load_tokenizer(tokenizers_dir() / family);
    const core::Json& want = tokenizer_golden().at(family).at("chats");
    for (size_t i = 0; i < want.size(); ++i) {
      std::vector<ChatMessage> chat;
      for (const core::Json& message : tokenizer_golden().at("chats").at(i))
        chat.push_back({message.at(0).get<std::string>(), message.at(1).get<std::string>()});
      CAPTURE(i);
      CHECK(codec->chat_prompt(chat) == want.at(i).get<std::string>());
    }
    const std::vector<ChatMessage> unknown = {{"robot", "x"}};
    CHECK_THROWS_WITH_AS(codec->chat_prompt(unknown), doctest::Contains("role 'robot' is not known"), core::Error);
    CHECK_THROWS_WITH_AS(codec->chat_prompt({}), doctest::Contains("is empty"), core::Error);
  }
}

TEST_CASE("families are known by their templates") {
  const auto none = [](std::string_view) { return false; };
  const auto family = [&](std::string_view jinja) { return recognise_template(jinja, none)->family; };
  CHECK(family("{{ '<|start_header_id|>' }}") == ChatFamily::llama3);
  CHECK(family("<|start_header_id|> set date_string = \"1 Jan 2025\" Today Date: ") == ChatFamily::llama31);
  CHECK(recognise_template("<|start_header_id|> set date_string = \"1 Jan 2025\" Today Date: ", none)->date ==
        "1 Jan 2025");
  CHECK(recognise_template("<|start_header_id|> strftime_now Today Date: ", none)->date.empty());
  CHECK(family("<|im_start|> enable_thinking") == ChatFamily::qwen3);
  CHECK(family("<|im_start|>") == ChatFamily::qwen3_instruct);
  CHECK(family("{{- '<|im_start|>assistant\\n<think>\\n' }}") == ChatFamily::qwen3_thinking);
  CHECK(!recognise_template("<|im_start|> You are Qwen, created by", none));
  CHECK(!recognise_template("[INST]", none));
  CHECK(!recognise_template("", none));
  CHECK(recognise_template("", [](std::string_view) { return true; })->family == ChatFamily::llama3);

  const std::vector<ChatMessage> chat = {{"user", "q"}, {"assistant", "<think>a</think>b"}, {"user", "r"}};
  CHECK(render_chat({ChatFamily::qwen3_instruct, ""}, chat) ==
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>a</"
        "think>b<|im_end|>\n<|im_start|>user\nr<|im_end|>\n"
        "<|im_start|>assistant\n");
  CHECK(render_chat({ChatFamily::qwen3_thinking, ""}, chat).ends_with("<|im_start|>assistant\n<think>\n"));
  CHECK(render_chat({ChatFamily::llama3, ""}, std::span(chat).first(1)) ==
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
  // Of the day: "21 Nov 2026" has 11 characters.
  const std::string dated = render_chat({ChatFamily::llama31, ""}, std::span(chat).first(1));
  const size_t at = dated.find("Today Date: ") + 12;
  CHECK(dated.find("\n\n<|eot_id|>", at) == at + 11);
}

TEST_CASE("special tokens are hidden, end answers, and stay text where they are not wanted") {
  const auto codec = load_tokenizer(tokenizers_dir() / "qwen3");
  const Token end = codec->encode("<|im_end|>", true).front(), think = codec->encode("<think>", false).front();
  CHECK(codec->encode("<|im_end|>", true).size() == 1);
  CHECK(codec->encode("<|im_end|>", false).size() > 1);
  CHECK(codec->bytes(end).empty());
  CHECK(codec->bytes(think) == "<think>");  // added, but not special: shown, and always a token
  CHECK(codec->bytes(-1).empty());
  CHECK(codec->bytes(1 << 30).empty());
  REQUIRE(codec->stop_tokens().size() == 1);
  CHECK(codec->stop_tokens()[0] == end);
  CHECK(codec->vocabulary() == 1200 + 9);
}

TEST_CASE("stop tokens and templates are found where folders have them") {
  const auto dir = std::filesystem::temp_directory_path() / "drydock_tokenizer_folder";
  std::filesystem::create_directories(dir);
  std::filesystem::copy_file(tokenizers_dir() / "qwen3/tokenizer.json", dir / "tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  core::write_file(dir / "config.json", R"({"eos_token_id": 7})");
  const auto stops = [&] {
    const auto codec = load_tokenizer(dir);
    return std::vector<Token>(codec->stop_tokens().begin(), codec->stop_tokens().end());
  };
  CHECK(stops() == std::vector<Token>{7});
  core::write_file(dir / "generation_config.json", R"({"eos_token_id": [3, 5, 3]})");
  CHECK(stops() == std::vector<Token>{3, 5});
  core::write_file(
      dir / "tokenizer_config.json",
      R"({"eos_token": {"content": "<|im_end|>"}, "chat_template": [{"name": "default", "template": "[INST]"}]})");
  CHECK(stops().size() == 3);
  const std::vector<ChatMessage> chat = {{"user", "x"}};
  CHECK_THROWS_WITH_AS(load_tokenizer(dir)->chat_prompt(chat), doctest::Contains("no chat template of"), core::Error);
  core::write_file(dir / "chat_template.jinja", "<|im_start|>");
  CHECK(load_tokenizer(dir)->chat_prompt(chat) == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n");
  core::write_file(dir / "generation_config.json", R"({"eos_token_id": "x"})");
  CHECK_THROWS_WITH_AS(load_tokenizer(dir), doctest::Contains("field 'eos_token_id'"), core::Error);
  std::filesystem::remove_all(dir);
}

TEST_CASE("invalid UTF-8 is replaced as Python replaces it") {
  const std::string replacement = "\xEF\xBF\xBD";
  CHECK(valid_utf8("a\xFF"
                   "b") == "a" + replacement + "b");
  CHECK(valid_utf8("\xC3") == replacement);
  CHECK(valid_utf8("\xC3(") == replacement + "(");
  CHECK(valid_utf8("\xF0\x9F\x98") == replacement);  // one for a character that is cut off
  CHECK(valid_utf8("\xF0\x9F\x98\x80") == "\xF0\x9F\x98\x80");
  CHECK(valid_utf8("\xE0\x80\x80") == replacement + replacement + replacement);  // overlong: three bytes astray
  CHECK(valid_utf8("\xED\xA0\x80") == replacement + replacement + replacement);  // a surrogate
  CHECK(valid_utf8("\xF4\x90\x80\x80") == replacement + replacement + replacement + replacement);
  CHECK(valid_utf8("\xC0\xAF") == replacement + replacement);
  const auto codec = load_tokenizer(tokenizers_dir() / "llama3");
  CHECK(codec->encode("x\x80y", false) == codec->encode("x" + replacement + "y", false));
}

TEST_CASE("long texts take time in proportion") {
  // Each of a megabyte, which takes 0.5 s at most; what is quadratic takes hours.
  const size_t count = 1'000'000;
  std::string marks, lines;
  while (marks.size() < count) marks += "\u0301\u0323\u0345\u0307";
  while (lines.size() < count) lines += " \n\t ";
  for (const char* family : {"llama3", "qwen3"}) {
    const auto codec = load_tokenizer(tokenizers_dir() / family);
    for (const std::string& text : {std::string(count, 'a'), std::string(count, ' '), std::string(count, '<'),
                                    std::string(count, '7'), std::string(count, '!'), marks, lines}) {
      const auto begin = std::chrono::steady_clock::now();
      const std::vector<Token> tokens = codec->encode(text, true);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      CHECK(tokens.size() > 1000);
      CHECK(seconds < 10);
    }
  }
}

TEST_CASE("merges: earliest learned first, leftmost first, however long the word") {
  std::vector<std::pair<std::string, Token>> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(std::string(1, static_cast<char>(byte)), byte);
  tokens.insert(tokens.end(), {{"aa", 256}, {"ab", 257}, {"aab", 258}, {"never", 259}});
  const std::vector<Bpe::Merge> merges = {{'a', 'a', 256}, {'a', 'b', 257}, {256, 'b', 258}};
  const Bpe bpe(tokens, merges, false, "x.json"), whole(tokens, merges, true, "x.json");
  const auto encode = [](const Bpe& by, std::string_view word) {
    std::vector<Token> out;
    by.encode(word, out);
    return out;
  };
  CHECK(encode(bpe, "aab") == std::vector<Token>{258});
  CHECK(encode(bpe, "aaab") == std::vector<Token>{256, 257});  // aa, then ab before aab
  CHECK(encode(bpe, "never").size() == 5);                     // no merges lead to it
  CHECK(encode(whole, "never") == std::vector<Token>{259});
  CHECK(encode(bpe, "").empty());
  // A word beyond the short ones: 101 a's and a b are fifty aa's and an ab.
  std::vector<Token> want(50, 256);
  want.push_back(257);
  CHECK(encode(bpe, std::string(101, 'a') + "b") == want);
}

namespace {

core::Json llama_tokenizer() {
  return core::parse_json(core::read_file(tokenizers_dir() / "llama3/tokenizer.json"), "t");
}

void refuse_tokenizer(const core::Json& changed, const char* why) {
  CHECK_THROWS_WITH_AS(parse_tokenizer(changed.dump(), "t.json"), doctest::Contains(why), core::Error);
}

}  // namespace

TEST_CASE("what is not a byte-level BPE tokenizer is refused in one line") {
  core::Json t = llama_tokenizer();
  t["model"]["type"] = "Unigram";
  refuse_tokenizer(t, "field 'model.type': 'Unigram' is not read here");
  t = llama_tokenizer(), t["model"]["merges"][0] = "zzzz qqqq";
  refuse_tokenizer(t, "'zzzz qqqq': both and what they make have to be in vocab");
  t = llama_tokenizer(), t["model"]["merges"][0] = core::Json::array({"a"});
  refuse_tokenizer(t, "each has to be");
  t = llama_tokenizer(), t["model"]["vocab"]["a"] = -1;
  refuse_tokenizer(t, "ids have to be integers");
  t = llama_tokenizer(), t["pre_tokenizer"] = {{"type", "Metaspace"}};
  refuse_tokenizer(t, "'Metaspace' is not read here");
  t = llama_tokenizer(), t["pre_tokenizer"]["pretokenizers"].erase(1);
  refuse_tokenizer(t, "has no ByteLevel");
  t = llama_tokenizer(), t["normalizer"] = {{"type", "NFKC"}};
  refuse_tokenizer(t, "'NFKC' is not read here");
  t = llama_tokenizer(), t["added_tokens"][0]["content"] = "";
  refuse_tokenizer(t, "field 'added_tokens[0].content': is empty");
  t = llama_tokenizer(), t["added_tokens"][0]["lstrip"] = true;
  refuse_tokenizer(t, "lstrip");
  CHECK_THROWS_WITH_AS(SplitPattern("a(b", "t.json"), doctest::Contains("pattern 'a(b'"), core::Error);
  CHECK_THROWS_WITH_AS(load_tokenizer("/nonexistent"), doctest::Contains("/nonexistent/tokenizer.json"), core::Error);
  // A pattern that would try every way to cut gives up instead.
  const SplitPattern slow("(?:a|aa)+\\z", "t.json");
  CHECK_THROWS_WITH_AS(slow.split(std::string(64, 'a') + "!", [](std::string_view) {}),
                       doctest::Contains("on this text"), core::Error);
}
