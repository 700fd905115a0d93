#include "runtime/tokenizer.h"

#include <algorithm>

#include "core/file.h"
#include "core/json.h"
#include "runtime/chat_template.h"
#include "runtime/special_tokens.h"
#include "runtime/split_pattern.h"
#include "runtime/tokenizer_file.h"
#include "runtime/unicode_text.h"

namespace drydock::runtime {
namespace {

namespace fs = std::filesystem;

class ByteLevelTokenizer : public TextCodec {
 public:
  explicit ByteLevelTokenizer(const TokenizerFile& file)
      : bpe_(file.tokens, file.merges, file.whole_words, file.origin), nfc_(file.nfc), begin_(file.begin) {
    for (const std::string& pattern : file.patterns) patterns_.emplace_back(pattern, file.origin);
    for (const auto& [bytes, id] : file.tokens) put(id, bytes);
    for (const AddedToken& added : file.added) {
      put(added.id, added.special ? "" : added.text);
      add(with_specials_, added);
      if (!added.special) add(without_specials_, added);
      ids_[added.text] = added.id;
    }
  }

  std::vector<Token> encode(std::string_view text, bool specials) const override {
    const std::string valid = valid_utf8(text);
    const Matchers& matchers = specials ? with_specials_ : without_specials_;
    std::vector<Token> out;
    const auto take = [&](Token token) { out.push_back(token); };
    const auto words = [&](std::string_view piece) { cut(piece, 0, out); };
    matchers.raw.split(
        valid,
        [&](std::string_view piece) {
          if (nfc_)
            matchers.normalized.split(nfc(piece), words, take);
          else
            matchers.normalized.split(piece, words, take);
        },
        take);
    return out;
  }

  std::string bytes(Token token) const override {
    return token >= 0 && static_cast<size_t>(token) < bytes_.size() ? bytes_[static_cast<size_t>(token)] : "";
  }

  std::string chat_prompt(std::span<const ChatMessage> messages) const override {
    if (!chat_) throw core::Error("messages: this model's tokenizer has no chat template of Llama 3 or Qwen3");
    return render_chat(*chat_, messages);
  }

  std::span<const Token> stop_tokens() const override { return stop_; }
  std::span<const Token> begin_tokens() const override { return begin_; }
  int64_t vocabulary() const override { return static_cast<int64_t>(bytes_.size()); }

  // nullopt: no such special or added token.
  std::optional<Token> added_token(std::string_view text) const {
    const auto found = ids_.find(std::string(text));
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  void set_chat(std::optional<ChatTemplate> chat) { chat_ = std::move(chat); }
  void add_stop(Token token) {
    if (std::find(stop_.begin(), stop_.end(), token) == stop_.end()) stop_.push_back(token);
  }

 private:
  struct Matchers {
    SpecialTokens raw, normalized;  // looked for in the text as it is, and after normalization
  };

  static void add(Matchers& matchers, const AddedToken& added) {
    (added.normalized ? matchers.normalized : matchers.raw).add(added.text, added.id);
  }

  void put(Token id, std::string_view text) {
    if (bytes_.size() <= static_cast<size_t>(id)) bytes_.resize(static_cast<size_t>(id) + 1);
    bytes_[static_cast<size_t>(id)] = text;
  }

  void cut(std::string_view piece, size_t pattern, std::vector<Token>& out) const {
    if (pattern == patterns_.size())
      bpe_.encode(piece, out);
    else
      patterns_[pattern].split(piece, [&](std::string_view word) { cut(word, pattern + 1, out); });
  }

  Bpe bpe_;
  bool nfc_;
  std::vector<SplitPattern> patterns_;
  Matchers with_specials_, without_specials_;
  std::vector<std::string> bytes_;  // by token
  std::unordered_map<std::string, Token> ids_;
  std::vector<Token> begin_, stop_;
  std::optional<ChatTemplate> chat_;
};

core::Json read_if_there(const fs::path& file) {
  return fs::exists(file) ? core::read_json(file) : core::Json::object();
}

// The field's text; tokens are also written {"content": text}.
std::string token_text(const core::Json& config, const char* field) {
  const auto found = config.find(field);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && found->at("content").is_string())
    return found->at("content").get<std::string>();
  return "";
}

// A text, or several by name: then "default".
std::string template_text(const fs::path& dir, const core::Json& config) {
  if (const fs::path file = dir / "chat_template.jinja"; fs::exists(file)) return core::read_file(file, 1 << 20);
  const auto found = config.find("chat_template");
  if (found == config.end() || !found->is_array()) return token_text(config, "chat_template");
  for (const core::Json& one : *found)
    if (one.is_object() && token_text(one, "name") == "default") return token_text(one, "template");
  return "";
}

// eos_token_id is a number or several.
void add_stops(const fs::path& file, ByteLevelTokenizer& tokenizer) {
  const core::Json config = read_if_there(file);
  const auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return;
  const auto add = [&](const core::Json& id) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX)
      throw core::Error(file.string() + ": field 'eos_token_id': a token or a list of tokens is right");
    tokenizer.add_stop(id.get<Token>());
  };
  if (found->is_array())
    for (const core::Json& id : *found) add(id);
  else
    add(*found);
}

}  // namespace

std::shared_ptr<const TextCodec> parse_tokenizer_codec(std::string_view tokenizer_json, std::string_view origin) {
  return std::make_shared<ByteLevelTokenizer>(parse_tokenizer(tokenizer_json, origin));
}

std::shared_ptr<const TextCodec> load_tokenizer(const fs::path& model_dir) {
  const fs::path file = model_dir / "tokenizer.json";
  auto tokenizer = std::make_shared<ByteLevelTokenizer>(parse_tokenizer(core::read_file(file), file.string()));
  const core::Json config = read_if_there(model_dir / "tokenizer_config.json");
  if (!config.is_object())
    throw core::Error((model_dir / "tokenizer_config.json").string() + ": a JSON object is right");
  tokenizer->set_chat(recognise_template(template_text(model_dir, config), [&](std::string_view text) {
    return tokenizer->added_token(text).has_value();
  }));
  const fs::path generation = model_dir / "generation_config.json";
  add_stops(fs::exists(generation) ? generation : model_dir / "config.json", *tokenizer);
  if (const auto end = tokenizer->added_token(token_text(config, "eos_token"))) tokenizer->add_stop(*end);
  return tokenizer;
}

}  // namespace drydock::runtime
