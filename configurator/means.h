#pragma once
// Mean TTFT and TPOT of the same plans again and again, under one set of a backend's figures after another.
#include <memory>
#include <optional>
#include <vector>

#include "configurator/predict.h"

namespace drydock::configurator {

// predict() without bands, with engines built once and shared by plans that have them alike: what a fit asks for.
class MeanPredictor {
 public:
  // Plans are known to have run (Fit::assumed). Throws core::Error as predict() does. Keeps a reference to `resources`.
  MeanPredictor(const std::vector<const models::Plan*>& plans, Resources& resources);
  ~MeanPredictor();

  // Resources::set_backends() was called.
  void figures_changed();

  struct Means {
    double ttft_ms = 0, tpot_ms = 0;
    double outside_users = 0;  // requests in flight whose outside_ms() is in the TTFT
  };
  // Of the plan with this index; nullopt: its rate is more than it can serve. Safe to ask from many threads.
  std::optional<Means> of(size_t plan) const;

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace drydock::configurator
