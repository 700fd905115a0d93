#include "runtime/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>

#include "core/error.h"
#include "core/random.h"

namespace drydock::runtime {
namespace {

constexpr size_t kShortWord = 48;  // bytes up to where looking at all pairs beats a queue

}  // namespace

Bpe::Bpe(const std::vector<std::pair<std::string, Token>>& tokens, const std::vector<Merge>& merges, bool whole_words,
         std::string_view origin) {
  bytes_.fill(-1);
  for (const auto& [text, id] : tokens)
    if (text.size() == 1) bytes_[static_cast<unsigned char>(text[0])] = id;
  if (std::find(bytes_.begin(), bytes_.end(), -1) != bytes_.end())
    throw core::Error(std::string(origin) + ": model.vocab: a token for each of the 256 bytes is right");
  rules_.resize(std::bit_ceil(2 * merges.size() + 2));
  for (size_t i = 0; i < merges.size(); ++i) add_rule(merges[i], static_cast<uint32_t>(i));
  // Most words are one token: those that merging leads to are found at once.
  std::vector<Token> merged;
  for (const auto& [text, id] : tokens) {
    merged.clear();
    if (!whole_words && text.size() <= kShortWord) merge(text, merged);
    if (whole_words || (merged.size() == 1 && merged[0] == id)) words_[text] = id;
  }
}

void Bpe::add_rule(const Merge& merge, uint32_t rank) {
  const uint64_t pair = pair_of(merge.left, merge.right);
  size_t place = core::mix(pair) & (rules_.size() - 1);
  while (rules_[place].pair != kNoPair && rules_[place].pair != pair) place = (place + 1) & (rules_.size() - 1);
  rules_[place] = {pair, rank, merge.merged};  // of equal pairs the last counts, as in the tokenizers library
}

const Bpe::Rule* Bpe::rule(Token left, Token right) const {
  const uint64_t pair = pair_of(left, right);
  for (size_t place = core::mix(pair) & (rules_.size() - 1); rules_[place].pair != kNoPair;
       place = (place + 1) & (rules_.size() - 1))
    if (rules_[place].pair == pair) return &rules_[place];
  return nullptr;
}

void Bpe::encode(std::string_view word, std::vector<Token>& out) const {
  if (const auto found = words_.find(word); found != words_.end())
    out.push_back(found->second);
  else
    merge(word, out);
}

void Bpe::merge(std::string_view word, std::vector<Token>& out) const {
  if (word.size() <= kShortWord)
    merge_short(word, out);
  else
    merge_long(word, out);
}

void Bpe::merge_short(std::string_view word, std::vector<Token>& out) const {
  struct Part {
    Token token;
    uint32_t rank;  // of the merge with the next part
    Token merged;
  };
  constexpr uint32_t kNoRank = ~uint32_t{0};
  Part parts[kShortWord];
  size_t count = word.size();
  const auto look = [&](size_t i) {
    const Rule* const found = i + 1 < count ? rule(parts[i].token, parts[i + 1].token) : nullptr;
    parts[i].rank = found != nullptr ? found->rank : kNoRank;
    parts[i].merged = found != nullptr ? found->merged : 0;
  };
  for (size_t i = 0; i < count; ++i) parts[i].token = bytes_[static_cast<unsigned char>(word[i])];
  for (size_t i = 0; i < count; ++i) look(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (parts[i].rank < parts[best].rank) best = i;
    if (parts[best].rank == kNoRank) break;
    parts[best].token = parts[best].merged;
    std::copy(parts + best + 2, parts + count, parts + best + 1);
    --count;
    look(best);
    if (best > 0) look(best - 1);
  }
  for (size_t i = 0; i < count; ++i) out.push_back(parts[i].token);
}

void Bpe::merge_long(std::string_view word, std::vector<Token>& out) const {
  struct Part {
    Token token;
    int64_t before, after;  // -1: none; a part that is gone has token -1
  };
  struct Candidate {
    uint32_t rank;
    int64_t left;
    Token left_token, right_token, merged;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  const auto count = static_cast<int64_t>(word.size());
  std::vector<Part> parts(word.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto look = [&](int64_t left) {
    if (left < 0 || parts[left].after < 0) return;
    const Token a = parts[left].token, b = parts[parts[left].after].token;
    if (const Rule* const found = rule(a, b)) queue.push({found->rank, left, a, b, found->merged});
  };
  for (int64_t i = 0; i < count; ++i)
    parts[i] = {bytes_[static_cast<unsigned char>(word[i])], i - 1, i + 1 < count ? i + 1 : -1};
  for (int64_t i = 0; i < count; ++i) look(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Part& left = parts[best.left];
    // Either part may have been merged since.
    if (left.token != best.left_token || left.after < 0 || parts[left.after].token != best.right_token) continue;
    parts[left.after].token = -1;
    left.token = best.merged;
    left.after = parts[left.after].after;
    if (left.after >= 0) parts[left.after].before = best.left;
    look(left.before);
    look(best.left);
  }
  for (int64_t i = 0; i >= 0 && i < count; i = parts[i].after) out.push_back(parts[i].token);
}

}  // namespace drydock::runtime
