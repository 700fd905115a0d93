#include <cmath>
#include <string>
#include <vector>

#include "core/json.h"
#include "runtime/answer_text.h"
#include "runtime/byte_codec.h"
#include "runtime/completion_request.h"
#include "runtime/completion_writer.h"
#include "tests/fuzz/refusable.h"
#include "tests/fuzz/targets.h"

namespace drydock::fuzz {
namespace {

constexpr int64_t kLongest = 1000;

void check_completion(const runtime::CompletionRequest& request) {
  expect(!request.generations.empty() && request.generations.size() <= 4, "there are as many choices as allowed");
  expect(request.stops.size() <= 4 && request.logprobs >= -1 && request.logprobs <= 20, "lists are bounded");
  for (const runtime::Generation& generation : request.generations) {
    const auto prompt = static_cast<int64_t>(generation.prompt.size());
    expect(prompt > 0 && generation.most_tokens > 0, "something is asked for");
    expect(prompt + generation.most_tokens <= kLongest, "prompt and answer fit");
    for (const runtime::Token token : generation.prompt)
      expect(token >= 0 && token < 256, "tokens are of the vocabulary");
    const runtime::Sampling& sampling = generation.sampling;
    expect(sampling.temperature >= 0 && sampling.temperature <= 2, "the temperature is one");
    expect(sampling.top_p > 0 && sampling.top_p <= 1 && sampling.top_k >= 0, "top_p and top_k are in range");
  }
}

// Stop strings come out of JSON, which is UTF-8.
std::string valid_text(std::string_view bytes) {
  runtime::Utf8Assembler utf8;
  std::string out;
  utf8.push(bytes, out);
  utf8.finish(out);
  return out;
}

// `text` in pieces of `step` bytes, with these stop strings.
std::string told(std::string_view text, const std::vector<std::string>& stops, size_t step, bool& stopped) {
  runtime::AnswerText answer(stops);
  std::string out;
  stopped = false;
  for (size_t at = 0; at < text.size() && !stopped; at += step) stopped = answer.push(text.substr(at, step), out);
  if (!stopped) answer.finish(out);
  return out;
}

// Each event is a line of JSON that holds the text as it was.
void check_event(runtime::CompletionKind kind, const std::string& text) {
  runtime::CompletionRequest request;
  request.kind = kind;
  request.model = "demo";
  request.logprobs = 0;
  const runtime::CompletionWriter writer(request, "id", 1);
  const runtime::ToldToken token{1, text.substr(0, 5), -1.5f, {}, 0};
  std::string event;
  writer.event(event, 0, text, true, {&token, 1}, "stop");
  expect(event.starts_with("data: ") && event.ends_with("\n\n"), "an event is framed");
  const std::string_view line = std::string_view(event).substr(6, event.size() - 8);
  expect(line.find('\n') == std::string_view::npos && line.find('\r') == std::string_view::npos,
         "an event is one line");
  const core::Json choice = core::parse_json(line, "event")["choices"][0];
  expect((kind == runtime::CompletionKind::chat ? choice["delta"]["content"] : choice["text"]) == text, "text stays");
}

}  // namespace

void completion(std::string_view input) {
  static const runtime::ByteCodec codec;
  static const std::vector<std::string> models = {"demo"};
  const runtime::CompletionRules rules{codec, models, kLongest, 4};
  for (const auto kind : {runtime::CompletionKind::text, runtime::CompletionKind::chat})
    refusable([&] {
      core::Random random(1);
      check_completion(runtime::parse_completion(kind, input, rules, random));
    });
  refusable([&] { core::parse_json(runtime::tokenize(input, rules), "answer"); });
  refusable([&] { core::parse_json(runtime::detokenize(input, rules), "answer"); });
}

void answer(std::string_view input) {
  constexpr std::string_view kBreak = "\n---\n";
  const size_t at = input.find(kBreak);
  std::vector<std::string> stops;
  if (at != std::string_view::npos) {
    const std::string_view head = input.substr(0, at);
    for (size_t from = 0; from < head.size() && stops.size() < 4;) {
      const size_t end = std::min(head.find('\n', from), head.size());
      if (end > from) stops.push_back(valid_text(head.substr(from, end - from)));
      from = end + 1;
    }
    input.remove_prefix(at + kBreak.size());
  }
  bool stopped = false, also_stopped = false;
  const std::string whole = told(input, stops, std::max<size_t>(input.size(), 1), stopped);
  for (const size_t step : {1, 3, 7}) {
    expect(told(input, stops, step, also_stopped) == whole, "text does not depend on where tokens end");
    expect(stopped == also_stopped, "nor does the stop");
  }
  for (const std::string& stop : stops) expect(whole.find(stop) == std::string::npos, "no stop string is shown");
  check_event(runtime::CompletionKind::text, whole);
  check_event(runtime::CompletionKind::chat, whole);
}

}  // namespace drydock::fuzz
