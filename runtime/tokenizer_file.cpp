#include "runtime/tokenizer_file.h"

#include <algorithm>
#include <unordered_map>

#include "core/json.h"
#include "runtime/unicode_text.h"

namespace drydock::runtime {
namespace {

using core::Fields;
using core::Json;

constexpr size_t kMostTokenizerBytes = 64 << 20;
constexpr int64_t kMostTokenIds = 1 << 22;
// OpenAI's GPT-2 (encoder.py), which ByteLevel cuts by unless told otherwise.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The bytes that a token's text stands for: GPT-2's alphabet writes every byte as a visible character.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    uint32_t spare = 256;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
      bytes_[visible ? byte : spare++] = static_cast<char>(byte);
    }
  }
  // A text with other characters stands for itself.
  std::string bytes(const std::string& text) const {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const auto found = bytes_.find(next_code_point(text, at));
      if (found == bytes_.end()) return text;
      out += found->second;
    }
    return out;
  }

 private:
  std::unordered_map<uint32_t, char> bytes_;
};

class TokenizerReader {
 public:
  TokenizerReader(const Json& document, std::string_view origin) : top_(document, std::string(origin)) {
    out_.origin = origin;
  }

  TokenizerFile read() {
    read_model(top_.object("model"));
    if (top_.has("added_tokens")) read_added(top_.array("added_tokens"));
    if (top_.has("normalizer")) read_normalizer(top_.object("normalizer"));
    read_pre_tokenizer(top_.object("pre_tokenizer"));
    if (!byte_level_) throw top_.error("pre_tokenizer", "has no ByteLevel; byte-level tokenizers are read here");
    if (top_.has("post_processor")) read_post_processor(top_.object("post_processor"));
    return std::move(out_);
  }

 private:
  void read_model(const Fields& model) {
    if (const std::string type = model.text("type"); type != "BPE")
      throw model.error("type", "'" + type + "' is not read here; BPE is right");
    if (model.boolean_or("byte_fallback", false))
      throw model.error("byte_fallback", "is true; byte-level BPE is right");
    if (model.number_or("dropout", 0, 0, 1) != 0) throw model.error("dropout", "has to be 0 or null");
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!model.text_or(affix, "").empty()) throw model.error(affix, "has to be empty");
    out_.whole_words = model.boolean_or("ignore_merges", false);
    const ByteAlphabet alphabet;
    for (const auto& [text, id] : model.object("vocab").json().items()) {
      ids_[text] = read_id(model, "vocab", id);
      out_.tokens.emplace_back(alphabet.bytes(text), ids_[text]);
    }
    for (const Json& merge : model.array("merges")) read_merge(model, merge);
  }

  Token read_id(const Fields& fields, const char* field, const Json& id) const {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMostTokenIds)
      throw fields.error(field, "ids have to be integers from 0 to 4194303");
    return id.get<Token>();
  }

  // "a b", as ever, or ["a", "b"].
  void read_merge(const Fields& model, const Json& merge) {
    std::string left, right;
    if (merge.is_string()) {
      const std::string text = merge.get<std::string>();
      const size_t space = text.find(' ');
      if (space != std::string::npos) left = text.substr(0, space), right = text.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
    }
    const auto a = ids_.find(left), b = ids_.find(right), both = ids_.find(left + right);
    if (left.empty() || right.empty()) throw model.error("merges", "each has to be \"a b\" or [\"a\", \"b\"]");
    if (a == ids_.end() || b == ids_.end() || both == ids_.end())
      throw model.error("merges", "'" + left.substr(0, 40) + " " + right.substr(0, 40) +
                                      "': both and what they make have to be in vocab");
    out_.merges.push_back({a->second, b->second, both->second});
  }

  void read_added(const Json& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const Fields token(tokens[i], top_.origin(), "added_tokens[" + std::to_string(i) + "]");
      AddedToken added;
      if (!token.require("content").is_string()) throw token.error("content", "has to be text");
      added.text = token.json().at("content").get<std::string>();
      added.id = read_id(token, "id", token.require("id"));
      added.special = token.boolean_or("special", false);
      added.normalized = token.boolean_or("normalized", !added.special);
      if (added.text.empty()) throw token.error("content", "is empty");
      for (const char* flag : {"single_word", "lstrip", "rstrip"})
        if (token.boolean_or(flag, false)) throw token.error(flag, "is true, which is not read here");
      out_.added.push_back(std::move(added));
    }
  }

  void read_normalizer(const Fields& normalizer) {
    const std::string type = normalizer.text("type");
    if (type == "Sequence") {
      for_each_part(normalizer, "normalizers", [&](const Fields& part) { read_normalizer(part); });
      return;
    }
    if (type != "NFC") throw normalizer.error("type", "'" + type + "' is not read here; NFC is right");
    out_.nfc = true;
  }

  void read_pre_tokenizer(const Fields& part) {
    const std::string type = part.text("type");
    if (byte_level_) throw part.error("type", "'" + type + "' after ByteLevel is not read here");
    if (type == "Sequence") {
      for_each_part(part, "pretokenizers", [&](const Fields& inner) { read_pre_tokenizer(inner); });
    } else if (type == "Split") {
      if (part.text("behavior") != "Isolated" || part.boolean_or("invert", false))
        throw part.error("behavior", "Isolated, not inverted, is right");
      out_.patterns.push_back(pattern_of(part.object("pattern")));
    } else if (type == "ByteLevel") {
      if (part.boolean_or("add_prefix_space", true)) throw part.error("add_prefix_space", "has to be false");
      if (part.boolean_or("use_regex", true)) out_.patterns.emplace_back(kGpt2Pattern);
      byte_level_ = true;
    } else {
      throw part.error("type", "'" + type + "' is not read here; Sequence, Split or ByteLevel is right");
    }
  }

  static std::string pattern_of(const Fields& pattern) {
    if (!pattern.has("Regex") || !pattern.require("Regex").is_string())
      throw pattern.error("Regex", "missing; a regular expression is right");
    return pattern.json().at("Regex").get<std::string>();
  }

  void read_post_processor(const Fields& processor) {
    const std::string type = processor.text("type");
    if (type == "Sequence") {
      for_each_part(processor, "processors", [&](const Fields& part) { read_post_processor(part); });
    } else if (type == "TemplateProcessing") {
      const Json& single = processor.array("single");
      for (size_t i = 0; i < single.size() && single[i].contains("SpecialToken"); ++i) {
        const Fields token(single[i].at("SpecialToken"), top_.origin(), "post_processor.single.SpecialToken");
        out_.begin.push_back(added_id(token, token.text("id")));
      }
    }
  }

  Token added_id(const Fields& fields, const std::string& text) const {
    for (const AddedToken& added : out_.added)
      if (added.text == text) return added.id;
    throw fields.error("id", "'" + text + "' is not among added_tokens");
  }

  template <typename Read>
  void for_each_part(const Fields& fields, const char* field, Read read) {
    const Json& parts = fields.array(field);
    for (size_t i = 0; i < parts.size(); ++i)
      read(Fields(parts[i], top_.origin(), std::string(field) + "[" + std::to_string(i) + "]"));
  }

  Fields top_;
  TokenizerFile out_;
  std::unordered_map<std::string, Token> ids_;
  bool byte_level_ = false;
};

}  // namespace

TokenizerFile parse_tokenizer(std::string_view json, std::string_view origin) {
  const Json document = core::parse_json(json, origin, kMostTokenizerBytes);
  return TokenizerReader(document, origin).read();
}

}  // namespace drydock::runtime
