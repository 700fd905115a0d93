#pragma once
// Tokenizers of Hugging Face folders: byte-level BPE as Llama-3 and Qwen3 have it, with their chat templates.
#include <filesystem>
#include <memory>

#include "runtime/text_codec.h"

namespace drydock::runtime {

// Reads tokenizer.json of the folder, and, where they are there, tokenizer_config.json, generation_config.json and
// config.json for special tokens and the family of chat template. Throws core::Error naming file and field on what is
// missing, broken or of another kind; a folder without a known family of templates refuses only chats.
std::shared_ptr<const TextCodec> load_tokenizer(const std::filesystem::path& model_dir);

// Of a tokenizer.json's text alone: without chats and tokens that end answers. `origin` names it in errors.
std::shared_ptr<const TextCodec> parse_tokenizer_codec(std::string_view tokenizer_json, std::string_view origin);

}  // namespace drydock::runtime
