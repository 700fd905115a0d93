#pragma once
// Clusters with made-up step prices, and what happened to every request in them.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <vector>

#include "core/random.h"
#include "simulator/cluster.h"

namespace drydock::simulator {

// A step takes base_us, prompt_us a prompt token, and of the slowest rank sequence_us a decoding sequence and what its
// mean context costs: linear between kinks at 64, 128, 256 ... tokens, steeper after each.
struct KinkedPrice : StepPrice {
  double base_us = 1000, prompt_us = 3, sequence_us = 10, context_us = 0.01, moved_us = 0.5, drain = 0;

  static double kink(double context) { return 64 * std::exp2(std::floor(std::log2(std::max(context, 32.0) / 64)) + 1); }
  double slope(double context) const { return context_us * (1 + std::log2(kink(context) / 64) / 4); }
  double attention(double context) const {
    double us = 0, from = 0;
    for (double to = 64; from < context; from = to, to *= 2) us += slope(from) * (std::min(to, context) - from);
    return us;
  }
  double rank_us(const StepWork& w) const {
    return w.decodes > 0 ? w.decodes * (sequence_us + attention(w.decode_context / w.decodes)) : 0;
  }
  RankStep rank_step(const StepWork& w, double growth) override {
    RankStep out;
    out.moved_kv_tokens = w.moved_kv_tokens;
    out.has_prompts = !w.prompts.empty();
    for (const auto& c : w.prompts)
      out.prompt_tokens += static_cast<double>(c.tokens) * (1 + static_cast<double>(c.context) * 1e-4);
    if (w.decodes <= 0) return out;
    const double context = w.decode_context / w.decodes;
    out.own_us = rank_us(w);
    out.growth_us = w.decodes * slope(context) * growth;
    out.steps = 1 + static_cast<int64_t>((kink(context) - context) / growth);
    out.tokens = w.decodes;
    return out;
  }
  using StepPrice::drain_us;
  using StepPrice::line;
  StepLine line(std::span<const RankStep> ranks) override {
    StepLine line{0, 0, INT64_MAX};
    double slowest = 0, tokens = 0, moved = 0;
    bool prompts = false;
    for (const RankStep& r : ranks) {
      if (r.own_us > slowest) slowest = r.own_us, line.growth_us = r.growth_us;
      tokens += r.prompt_tokens;
      moved += r.moved_kv_tokens;
      prompts |= r.has_prompts;
      line.steps = std::min(line.steps, r.steps);
    }
    line.first_us = base_us + slowest + prompt_us * tokens + moved_us * moved;
    if (prompts || moved > 0) return {line.first_us, 0, 1};
    for (const RankStep& r : ranks)
      if (r.growth_us > line.growth_us)
        line.steps =
            std::min(line.steps, 1 + static_cast<int64_t>((slowest - r.own_us) / (r.growth_us - line.growth_us)));
    return line;
  }
  double drain_us(std::span<const RankStep>) override { return drain; }
};

// Passes a load on and keeps each request's record under its tag; counts who is in the system over time.
class Journal : public Load, public Observer {
 public:
  explicit Journal(std::unique_ptr<Load> load) : load_(std::move(load)) {}

  double next_us() const override { return load_->next_us(); }
  int64_t hash_tokens() const override { return load_->hash_tokens(); }
  bool done() const override { return load_->done(); }
  Arrival take() override {
    Arrival a = load_->take();
    if (priorities > 1) a.priority = static_cast<int>(a.tag % priorities);
    output_tokens += a.output_tokens;
    prompt_tokens += a.prompt_tokens;
    ++taken;
    return a;
  }
  void done(const RequestRecord& r) override { last_ = r; }
  void finished(int64_t tag, double at_us) override {
    ++ends[tag];
    records[tag] = last_;
    load_->finished(tag, at_us);
  }
  void ran(int pool, int, const Run& run, int64_t prompt_tokens_of_run) override {
    busy_us[pool] += run.line.total_us(run.steps);
    computed += prompt_tokens_of_run;
    made += run.tokens * static_cast<double>(run.steps);
  }
  void token_gap(double, double tokens) override { gaps += tokens; }

  int priorities = 1;
  int64_t output_tokens = 0, prompt_tokens = 0, taken = 0, computed = 0;
  double made = 0, gaps = 0;
  std::map<int, double> busy_us;
  std::map<int64_t, int> ends;
  std::map<int64_t, RequestRecord> records;

 private:
  std::unique_ptr<Load> load_;
  RequestRecord last_;
};

// Requests at given times.
class ListLoad : public Load {
 public:
  explicit ListLoad(std::vector<Arrival> arrivals) : arrivals_(std::move(arrivals)) {
    for (size_t i = 0; i < arrivals_.size(); ++i) arrivals_[i].tag = static_cast<int64_t>(i);
  }
  double next_us() const override { return done() ? kNever : arrivals_[at_].at_us; }
  Arrival take() override { return arrivals_[at_++]; }
  bool done() const override { return at_ == arrivals_.size(); }

 private:
  std::vector<Arrival> arrivals_;
  size_t at_ = 0;
};

inline Arrival ask(double at_us, int64_t prompt, int64_t output) { return {at_us, prompt, output, {}, 0, 0, false}; }

inline PoolSpec pool_of(Stage stage, const scheduler::Policy& policy, StepPrice& price, int replicas = 1,
                        int64_t kv_blocks = 10'000, int ranks = 1) {
  PoolSpec pool;
  pool.stage = stage;
  pool.replicas = replicas;
  pool.ranks = ranks;
  pool.policy = policy;
  pool.kv_blocks = kv_blocks;
  pool.block_tokens = 16;
  pool.price = &price;
  return pool;
}

}  // namespace drydock::simulator
