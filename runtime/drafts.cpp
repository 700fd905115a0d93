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
  ModelDrafter(std::unique_ptr<Engine> engine, const ModelDraftOptions& options)
      : engine_(std::move(engine)), options_(options) {
    for (int64_t block = options.kv_blocks; block > 0; --block) free_.push_back(static_cast<int32_t>(block - 1));
  }

  std::vector<Token> propose(uint64_t sequence, std::span<const Token> tokens, int64_t most) override {
    const DraftQuestion question{sequence, tokens, Sampling{.temperature = 0}, 0, most};
    return propose_all({&question, 1}).front();
  }

  DraftAnswers propose_all(std::span<const DraftQuestion> questions) override {
    ++clock_;
    DraftAnswers answers(questions.size());
    std::vector<Job> jobs;
    jobs.reserve(questions.size());
    for (size_t i = 0; i < questions.size(); ++i)
      if (begin(questions[i])) jobs.push_back(job_of(questions[i], answers[i]));
    while (step(jobs)) continue;
    return answers;
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
  struct Job {
    State* state;
    const DraftQuestion* question;
    std::vector<Token>* drafts;
    Sampling sampling;
    std::vector<Token> fresh;  // not computed
    size_t taken = 0;          // of these by the step under way

    bool done() const { return static_cast<int64_t>(drafts->size()) >= question->most; }
  };

  // False: there is nothing to draft, or no room.
  bool begin(const DraftQuestion& q) {
    const int64_t tokens = static_cast<int64_t>(q.tokens.size()) + q.most - 1;
    if (q.tokens.empty() || q.most <= 0 || tokens > options_.longest) return false;
    State& state = states_[q.sequence];
    state.used = clock_;
    if (make_room(state, tokens)) return true;
    forget(q.sequence);
    return false;
  }

  Job job_of(const DraftQuestion& q, std::vector<Token>& drafts) {
    State& state = states_[q.sequence];
    // The KV of drafts that were not accepted is overwritten; the last token is always computed anew, for its logits.
    const auto same = std::mismatch(state.cached.begin(), state.cached.end(), q.tokens.begin(), q.tokens.end() - 1);
    state.cached.erase(same.first, state.cached.end());
    Job job{&state, &q, &drafts, q.sampling, {}, 0};
    job.sampling.logprobs = -1;
    job.fresh.assign(q.tokens.begin() + static_cast<int64_t>(state.cached.size()), q.tokens.end());
    return job;
  }

  // A step of the model for the jobs that want one. False: none does.
  bool step(std::vector<Job>& jobs) {
    RankWork work;
    int64_t budget = options_.most_tokens;
    for (Job& job : jobs) {
      job.taken = job.done() ? 0 : static_cast<size_t>(std::min(budget, static_cast<int64_t>(job.fresh.size())));
      if (job.taken == 0) continue;
      budget -= static_cast<int64_t>(job.taken);
      work.decodes.push_back({.tokens = std::span<const Token>(job.fresh).first(job.taken),
                              .context = static_cast<int64_t>(job.state->cached.size()),
                              .blocks = job.state->blocks,
                              .outputs = job.taken == job.fresh.size() ? 1 : 0,
                              .sampling = &job.sampling,
                              .answered = job.question->index + static_cast<int64_t>(job.drafts->size())});
    }
    if (work.empty()) return false;
    engine_->step({&work, 1}, result_);
    size_t output = 0;
    for (Job& job : jobs) {
      if (job.taken == 0) continue;
      const auto end = job.fresh.begin() + static_cast<int64_t>(job.taken);
      job.state->cached.insert(job.state->cached.end(), job.fresh.begin(), end);
      job.fresh.erase(job.fresh.begin(), end);
      if (!job.fresh.empty()) continue;
      job.drafts->push_back(result_.tokens.at(output++).token);
      job.fresh = {job.drafts->back()};
    }
    return true;
  }

  // Takes blocks of the sequences that have waited longest where none are free, but not of those that are asked about
  // now. False: there are not enough.
  bool make_room(State& state, int64_t tokens) {
    const auto wanted = static_cast<size_t>((tokens + options_.block_tokens - 1) / options_.block_tokens);
    while (state.blocks.size() + free_.size() < wanted) {
      auto oldest = states_.end();
      for (auto at = states_.begin(); at != states_.end(); ++at)
        if (at->second.used < clock_ && !at->second.blocks.empty() &&
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
  ModelDraftOptions options_;
  std::vector<int32_t> free_;
  std::map<uint64_t, State> states_;
  StepResult result_;
  uint64_t clock_ = 0;
};

}  // namespace

std::unique_ptr<Drafter> make_ngram_drafter(const NgramOptions& options) {
  return std::make_unique<NgramDrafter>(options);
}

std::unique_ptr<Drafter> make_model_drafter(std::unique_ptr<Engine> engine, const ModelDraftOptions& options) {
  return std::make_unique<ModelDrafter>(std::move(engine), options);
}

DraftAnswers Drafter::propose_all(std::span<const DraftQuestion> questions) {
  DraftAnswers answers;
  for (const DraftQuestion& q : questions) answers.push_back(propose(q.sequence, q.tokens, q.most));
  return answers;
}

DraftFunction one_by_one(std::function<std::vector<Token>(const DraftQuestion&)> draft) {
  return [draft = std::move(draft)](std::span<const DraftQuestion> questions) {
    DraftAnswers answers;
    for (const DraftQuestion& q : questions) answers.push_back(draft(q));
    return answers;
  };
}

int64_t accepted(std::span<const Token> drafts, std::span<const GeneratedToken> drawn) {
  size_t right = 0;
  while (right < drafts.size() && right + 1 < drawn.size() && drafts[right] == drawn[right].token) ++right;
  return static_cast<int64_t>(right) + 1;
}

}  // namespace drydock::runtime
