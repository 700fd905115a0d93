#include "runtime/stream_chunk.h"

#include <algorithm>
#include <array>
#include <limits>

#include "core/json.h"

namespace drydock::runtime {
namespace {

using core::Json;

// The fields that matter, wherever they stand.
enum class ChunkKey : uint8_t {
  other,
  choices,
  text,
  delta,
  content,
  reasoning_content,
  reasoning,
  role,
  tool_calls,
  finish_reason,
  usage,
  prompt_tokens,
  completion_tokens,
  prompt_tokens_details,
  cached_tokens,
  error,
  message,
  detail,
};
constexpr std::array<std::string_view, 18> kChunkKeys = {"",
                                                         "choices",
                                                         "text",
                                                         "delta",
                                                         "content",
                                                         "reasoning_content",
                                                         "reasoning",
                                                         "role",
                                                         "tool_calls",
                                                         "finish_reason",
                                                         "usage",
                                                         "prompt_tokens",
                                                         "completion_tokens",
                                                         "prompt_tokens_details",
                                                         "cached_tokens",
                                                         "error",
                                                         "message",
                                                         "detail"};

ChunkKey chunk_key(std::string_view name) {
  for (size_t i = 1; i < kChunkKeys.size(); ++i)
    if (kChunkKeys[i] == name) return static_cast<ChunkKey>(i);
  return ChunkKey::other;
}

class ChunkHandler : public nlohmann::json_sax<Json> {
 public:
  StreamChunk chunk;
  bool choice = false, opens = false;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t value) override { return number(value); }
  bool number_unsigned(uint64_t value) override {
    return number(static_cast<int64_t>(std::min<uint64_t>(value, std::numeric_limits<int64_t>::max())));
  }
  bool number_float(double, const std::string&) override { return true; }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override {
    if (depth_ == 0) chunk.is_json = true;
    choice |= depth_ == 2 && at(1) == ChunkKey::choices;
    return open();
  }
  bool start_array(size_t) override {
    if (depth_ == 0) return false;
    if (in_delta() && at(4) == ChunkKey::tool_calls) chunk.output = true;
    return open();
  }
  bool end_object() override { return --depth_, true; }
  bool end_array() override { return --depth_, true; }
  bool key(std::string& name) override {
    at(depth_) = depth_ <= 4 ? chunk_key(name) : ChunkKey::other;
    return true;
  }
  bool string(std::string& value) override {
    const bool said = !value.empty();
    if (depth_ == 3 && at(1) == ChunkKey::choices) {
      if (at(3) == ChunkKey::text) chunk.output |= said;
      if (at(3) == ChunkKey::finish_reason) chunk.finished |= said;
    } else if (in_delta()) {
      if (at(4) == ChunkKey::role) opens = true;
      if (at(4) == ChunkKey::content || at(4) == ChunkKey::reasoning_content || at(4) == ChunkKey::reasoning)
        chunk.output |= said;
    } else if (depth_ == 1 || (depth_ == 2 && at(1) == ChunkKey::error)) {
      const ChunkKey k = at(depth_);
      const bool named = k == ChunkKey::message || (depth_ == 1 && (k == ChunkKey::error || k == ChunkKey::detail));
      if (named && chunk.error.empty()) chunk.error = value.substr(0, 200);
    }
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  static constexpr int kDepth = core::kMaxJsonDepth;

  ChunkKey& at(int depth) { return keys_[static_cast<size_t>(depth)]; }
  bool in_delta() { return depth_ == 4 && at(1) == ChunkKey::choices && at(3) == ChunkKey::delta; }
  bool open() {
    if (++depth_ >= kDepth) return false;
    at(depth_) = ChunkKey::other;
    return true;
  }
  bool number(int64_t value) {
    if (depth_ == 2 && at(1) == ChunkKey::usage) {
      if (at(2) == ChunkKey::prompt_tokens) chunk.prompt_tokens = value;
      if (at(2) == ChunkKey::completion_tokens) chunk.completion_tokens = value;
    }
    if (depth_ == 3 && at(1) == ChunkKey::usage && at(2) == ChunkKey::prompt_tokens_details &&
        at(3) == ChunkKey::cached_tokens)
      chunk.cached_tokens = value;
    return true;
  }

  int depth_ = 0;
  std::array<ChunkKey, kDepth + 1> keys_{};
};

}  // namespace

StreamChunk read_stream_chunk(std::string_view json) {
  ChunkHandler handler;
  if (!Json::sax_parse(json, &handler)) return {};
  handler.chunk.silent = handler.choice && !handler.opens && !handler.chunk.finished && !handler.chunk.output;
  return std::move(handler.chunk);
}

}  // namespace drydock::runtime
