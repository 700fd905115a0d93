#include "runtime/drafts.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "runtime/engine.h"

namespace drydock::runtime {
namespace {

class NgramDrafter : public Drafter {
 public:
  explicit NgramDrafter(const NgramOptions& options) : options_(options) {
    if (options.least_run < 1 || options.most_run < options.least_run)
      throw core::Error("ngram drafter: runs of 1 <= least_run <= most_run tokens are right");
  }

  std::vector<Token> propose(uint64_t, std::span<const Token> tokens, int64_t most) override {
    const auto count = static_cast<int64_t>(tokens.size()), from = continuation_of(tokens);
    std::vector<Token> drafts;
    // Where what followed reaches the end, the sequence is taken to go on as it has: in a loop.
    for (int64_t i = from; from < count && static_cast<int64_t>(drafts.size()) < most; ++i)
      drafts.push_back(i < count ? tokens[static_cast<size_t>(i)] : drafts[static_cast<size_t>(i - count)]);
    return drafts;
  }

 private:
  // Index of the token that follows the latest of the longest earlier occurrences; tokens.size(): there is none.
  int64_t continuation_of(std::span<const Token> tokens) const {
    const auto count = static_cast<int64_t>(tokens.size());
    int64_t best = count, longest = options_.least_run - 1;
    for (int64_t end = count - 1; end > 0 && longest < options_.most_run; --end) {
      int64_t run = 0;
      while (run < std::min(end, options_.most_run) &&
             tokens[static_cast<size_t>(end - 1 - run)] == tokens[static_cast<size_t>(count - 1 - run)])
        ++run;
      if (run > longest) longest = run, best = end;
    }
    return best;
  }

  NgramOptions options_;
};

class ModelDrafter : public Drafter {
 public:
  ModelDrafter(std::unique_ptr<Engine> engine, int64_t kv_blocks, int64_t block_tokens)
      : engine_(std::move(engine)), block_tokens_(block_tokens) {
    for (int64_t block = kv_blocks; block > 0; --block) free_.push_back(static_cast<int32_t>(block - 1));
  }

  std::vector<Token> propose(uint64_t sequence, std::span<const Token> tokens, int64_t most) override {
    if (tokens.empty() || most <= 0) return {};
    State& state = states_[sequence];
    state.used = ++clock_;
    if (!make_room(state, static_cast<int64_t>(tokens.size()) + most - 1)) return {};
    // The KV of drafts that were not accepted is overwritten; the last token is always computed anew, for its logits.
    const auto same = std::mismatch(state.cached.begin(), state.cached.end(), tokens.begin(), tokens.end() - 1);
    state.cached.erase(same.first, state.cached.end());
    std::vector<Token> drafts;
    std::vector<Token> fresh(tokens.begin() + static_cast<int64_t>(state.cached.size()), tokens.end());
    while (static_cast<int64_t>(drafts.size()) < most) {
      drafts.push_back(next_token(state, fresh));
      fresh = {drafts.back()};
    }
    return drafts;
  }

  void forget(uint64_t sequence) override {
    const auto found = states_.find(sequence);
    if (found == states_.end()) return;
    free_.insert(free_.end(), found->second.blocks.begin(), found->second.blocks.end());
    states_.erase(found);
  }

 private:
  struct State {
    std::vector<Token> cached;  // whose KV is in blocks
    std::vector<int32_t> blocks;
    uint64_t used = 0;
  };

  Token next_token(State& state, const std::vector<Token>& fresh) {
    const Sampling greedy{.temperature = 0};
    RankWork work;
    work.decodes.push_back({.tokens = fresh,
                            .context = static_cast<int64_t>(state.cached.size()),
                            .blocks = state.blocks,
                            .outputs = 1,
                            .sampling = &greedy});
    StepResult result;
    engine_->step({&work, 1}, result);
    state.cached.insert(state.cached.end(), fresh.begin(), fresh.end());
    return result.tokens.front().token;
  }

  // Takes blocks of the sequences that have waited longest where none are free. False: there are not enough.
  bool make_room(State& state, int64_t tokens) {
    const auto wanted = static_cast<size_t>((tokens + block_tokens_ - 1) / block_tokens_);
    while (state.blocks.size() + free_.size() < wanted) {
      auto oldest = states_.end();
      for (auto at = states_.begin(); at != states_.end(); ++at)
        if (&at->second != &state && !at->second.blocks.empty() &&
            (oldest == states_.end() || at->second.used < oldest->second.used))
          oldest = at;
      if (oldest == states_.end()) return false;
      forget(oldest->first);
    }
    while (state.blocks.size() < wanted) {
      state.blocks.push_back(free_.back());
      free_.pop_back();
    }
    return true;
  }

  std::unique_ptr<Engine> engine_;
  int64_t block_tokens_;
  std::vector<int32_t> free_;
  std::map<uint64_t, State> states_;
  uint64_t clock_ = 0;
};

}  // namespace

std::unique_ptr<Drafter> make_ngram_drafter(const NgramOptions& options) {
  return std::make_unique<NgramDrafter>(options);
}

std::unique_ptr<Drafter> make_model_drafter(std::unique_ptr<Engine> engine, int64_t kv_blocks, int64_t block_tokens) {
  return std::make_unique<ModelDrafter>(std::move(engine), kv_blocks, block_tokens);
}

int64_t accepted(std::span<const Token> drafts, std::span<const GeneratedToken> drawn) {
  size_t right = 0;
  while (right < drafts.size() && right + 1 < drawn.size() && drafts[right] == drawn[right].token) ++right;
  return static_cast<int64_t>(right) + 1;
}

}  // namespace drydock::runtime
