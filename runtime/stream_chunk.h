#pragma once
// One event of an OpenAI-compatible stream, as far as a benchmark cares. Read by events of the parser, without building
// a document: a client of hundreds of streams sees a hundred thousand of them a second.
#include <cstdint>
#include <string>
#include <string_view>

namespace drydock::runtime {

struct StreamChunk {
  bool is_json = false;  // an object; else nothing below is set
  bool output = false;   // brings text, reasoning or a tool call
  bool silent = false;   // a choice without text that neither opens nor ends the answer: a token that is no text (yet)
  bool finished = false;
  int64_t prompt_tokens = -1, completion_tokens = -1, cached_tokens = -1;  // of `usage`; -1: not there
  std::string error;                                                       // of `error`, `message` or `detail`
};

// Of /v1/completions or /v1/chat/completions, vLLM's, SGLang's and TensorRT-LLM's additions included. Never throws:
// what is no such chunk has is_json false. Also reads the body of a refusal.
StreamChunk read_stream_chunk(std::string_view json);

}  // namespace drydock::runtime
