#pragma once
// A load that is counted on its way, and that may end early.
#include <memory>
#include <utility>

#include "simulator/arrivals.h"

namespace drydock::simulator {

class CountedLoad : public Load {
 public:
  // Requests that would come after `most_us` do not.
  explicit CountedLoad(std::unique_ptr<Load> load, double most_us = kNever)
      : load_(std::move(load)), most_us_(most_us) {}

  double next_us() const override {
    const double next = load_->next_us();
    return next > most_us_ ? kNever : next;
  }
  Arrival take() override {
    const Arrival arrival = load_->take();
    ++taken_;
    prompt_tokens_ += static_cast<double>(arrival.prompt_tokens);
    return arrival;
  }
  void finished(int64_t tag, double at_us) override {
    ++finished_;
    load_->finished(tag, at_us);
  }
  int64_t hash_tokens() const override { return load_->hash_tokens(); }
  bool done() const override { return load_->done() || (load_->next_us() > most_us_ && load_->next_us() != kNever); }

  int64_t taken() const { return taken_; }
  int64_t in_flight() const { return taken_ - finished_; }
  double prompt_tokens() const { return prompt_tokens_; }
  // Everything that was to come has come and is answered.
  bool over() const { return in_flight() == 0 && next_us() == kNever && done(); }

 private:
  std::unique_ptr<Load> load_;
  double most_us_;
  int64_t taken_ = 0, finished_ = 0;
  double prompt_tokens_ = 0;
};

}  // namespace drydock::simulator
