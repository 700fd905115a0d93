// Target for what a server under measurement sends.
#include <string>
#include <vector>

#include "core/error.h"
#include "runtime/sse.h"
#include "runtime/stream_chunk.h"
#include "tests/fuzz/refusable.h"
#include "tests/fuzz/targets.h"

namespace drydock::fuzz {
namespace {

std::vector<std::string> stream_events(std::string_view input, size_t piece) {
  std::vector<std::string> out;
  runtime::SseReader reader;
  for (size_t at = 0; at < input.size(); at += piece)
    reader.feed(input.substr(at, piece), [&](std::string_view data) { out.emplace_back(data); });
  return out;
}

}  // namespace

void sse(std::string_view input) {
  refusable([&] {
    const std::vector<std::string> whole = stream_events(input, input.size() + 1);
    for (const size_t piece : {size_t{1}, size_t{7}})
      expect(stream_events(input, piece) == whole, "events do not depend on how their bytes come");
    for (const std::string& event : whole) {
      const runtime::StreamChunk chunk = runtime::read_stream_chunk(event);
      expect(chunk.is_json || (!chunk.output && !chunk.silent && chunk.error.empty()), "what is no JSON says nothing");
      expect(chunk.error.size() <= 200, "an error is short");
    }
  });
}

}  // namespace drydock::fuzz
