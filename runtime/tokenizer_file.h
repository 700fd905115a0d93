#pragma once
// tokenizer.json of the tokenizers library, as far as byte-level BPE goes.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/bpe.h"

namespace drydock::runtime {

struct AddedToken {
  std::string text;
  Token id = 0;
  bool special = false;     // hidden in answers, and plain text where specials are not wanted
  bool normalized = false;  // looked for after normalization
};

struct TokenizerFile {
  std::string origin;                                 // in errors
  std::vector<std::pair<std::string, Token>> tokens;  // of the vocabulary, as bytes
  std::vector<Bpe::Merge> merges;
  bool whole_words = false;  // ignore_merges
  bool nfc = false;
  std::vector<std::string> patterns;  // each cuts the pieces of the one before
  std::vector<AddedToken> added;
  std::vector<Token> begin;  // that the post-processor puts before a text
};

// Throws core::Error naming the field that is missing, broken or asks for another kind of tokenizer.
TokenizerFile parse_tokenizer(std::string_view json, std::string_view origin);

}  // namespace drydock::runtime
