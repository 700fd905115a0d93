#pragma once
// What strangers can hand to drydock, one entry each for the fuzzer and for the replay of its corpus. An input may be
// refused with core::Error in one line; anything else that leaves an entry, a signal included, is a defect.
#include <string_view>

namespace drydock::fuzz {

// A config.json; after a line "---", the hf_quant_config.json beside it.
void config(std::string_view input);
// A plan.json. One that is accepted must read back the same from what is written for it.
void plan(std::string_view input);
// A CSV file, each cell also as number and as op key.
void csv(std::string_view input);
// A performance database, opened and read in full.
void database(std::string_view input);
// A request trace, in the format that it looks like and in each by name, with bad lines refused and passed over.
void trace(std::string_view input);
// A trace again, which a tiny cluster serves to its end.
void load(std::string_view input);
// How long requests are, as --lengths takes it.
void lengths(std::string_view input);
// How tokens are drafted, as --speculative takes it.
void speculation(std::string_view input);
// A scaling policy's JSON.
void policy(std::string_view input);
// A JSON of how often each expert was chosen; placed on GPUs when it is accepted.
void histogram(std::string_view input);
// A stream of server-sent events of an OpenAI-compatible server, whole and in pieces.
void sse(std::string_view input);

// A safetensors file.
void safetensors(std::string_view input);
// A tokenizer.json; after a line "---", a text for it.
void tokenizer(std::string_view input);
// A sweep's YAML; the items of one that is accepted are numbered through.
void sweep(std::string_view input);
// A fleet's YAML.
void fleet(std::string_view input);
// A message between router and workers, behind a byte that says which.
void wire(std::string_view input);
// A runtime.json, or a plan.json to serve.
void serve_config(std::string_view input);
// The body of a request to complete a text or a chat, and of one to turn text into tokens or back.
void completion(std::string_view input);
// Stop strings, a line each; after a line "---", the bytes of an answer's tokens, which may be cut anywhere.
void answer(std::string_view input);

}  // namespace drydock::fuzz
