#include "runtime/emulated_engine.h"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "core/random.h"

namespace drydock::runtime {
namespace {

constexpr int64_t kFirstPrintable = 32, kPrintable = 95;
constexpr std::chrono::seconds kMostBehind{1};

double emulated_context(const RankWork& rank) {
  double sum = 0;
  for (const SequenceWork& w : rank.decodes) sum += static_cast<double>(w.context);
  return sum;
}

}  // namespace

Token emulated_token(uint64_t seed, int64_t index) {
  const uint64_t drawn = core::mix(core::mix(seed) + static_cast<uint64_t>(index));
  return static_cast<Token>(kFirstPrintable + static_cast<int64_t>(drawn % kPrintable));
}

std::vector<Token> emulated_drafts(const scheduler::Speculation& speculation, uint64_t seed, int64_t index,
                                   int64_t most) {
  // One draw says how many drafts of the step are right: its chance of n or more is that of n accepted ones.
  core::Random random(seed, static_cast<uint64_t>(index) + 1);
  const int right = speculation.accepted(random.uniform());
  std::vector<Token> out;
  for (int64_t i = 0; i < std::min<int64_t>(most, speculation.drafts()); ++i) {
    const Token token = emulated_token(seed, index + i);
    out.push_back(i < right ? token : static_cast<Token>(kFirstPrintable + (token - kFirstPrintable + 1) % kPrintable));
  }
  return out;
}

void sleep_until(Clock::time_point when) {
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count();
  constexpr int64_t kSecond = 1'000'000'000;
  const timespec at{static_cast<time_t>(ns / kSecond), static_cast<long>(ns % kSecond)};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) continue;
}

EmulatedEngine::EmulatedEngine(simulator::StepPrice& price, const EmulatedOptions& options)
    : price_(&price), options_(options) {
  chunks_.resize(static_cast<size_t>(options.ranks));
  work_.resize(static_cast<size_t>(options.ranks));
}

void EmulatedEngine::draw(const SequenceWork& work, StepResult& result) const {
  for (int64_t i = 0; i < work.outputs; ++i) {
    GeneratedToken drawn;
    drawn.token = emulated_token(work.sampling->seed, work.answered + i);
    const int32_t wanted = work.sampling->logprobs;
    if (wanted >= 0) {
      // As if all characters were as likely.
      drawn.logprob = -std::log(static_cast<float>(kPrintable));
      for (int32_t k = 0; k < wanted; ++k)
        drawn.top.push_back(
            {static_cast<Token>(kFirstPrintable + (drawn.token - kFirstPrintable + k) % kPrintable), drawn.logprob});
    }
    result.tokens.push_back(std::move(drawn));
  }
}

void EmulatedEngine::step(std::span<const RankWork> ranks, StepResult& result) {
  const Clock::time_point now = Clock::now();
  // After a pause of the whole machine nothing is made up for.
  const Clock::time_point begin = last_end_ ? std::clamp(*last_end_, now - kMostBehind, now) : now;
  bool prompts = false;
  for (size_t r = 0; r < ranks.size(); ++r) {
    chunks_[r].clear();
    for (const SequenceWork& w : ranks[r].prompts)
      chunks_[r].push_back({0, static_cast<int64_t>(w.tokens.size()), w.context, w.outputs > 0});
    prompts |= !chunks_[r].empty();
    work_[r] = {static_cast<double>(ranks[r].decodes.size()), emulated_context(ranks[r]), chunks_[r],
                ranks[r].swapped_kv_tokens};
  }
  const double us = price_->step_us(work_) * options_.time_scale;
  result.tokens.clear();
  result.drain_us = prompts && options_.drains ? price_->drain_us(work_) * options_.time_scale : 0;
  for (const RankWork& rank : ranks) {
    for (const SequenceWork& w : rank.prompts) draw(w, result);
    for (const SequenceWork& w : rank.decodes) draw(w, result);
  }
  const Clock::time_point end = begin + std::chrono::nanoseconds(std::llround(us * 1e3));
  if (options_.time_scale > 0) sleep_until(end);
  last_end_ = end;
  result.us = std::chrono::duration<double, std::micro>(Clock::now() - now).count();
}

}  // namespace drydock::runtime
