#pragma once
// Prices the candidates of a search; what search.cpp ranks.
#include <memory>
#include <string>
#include <vector>

#include "configurator/search.h"
#include "simulator/serving.h"

namespace drydock::configurator {

// One priced candidate, kept small: thousands are made, a handful become plans.
struct Priced {
  models::Backend backend{};
  models::Mode mode{};
  std::vector<models::Pool> pools;
  std::vector<std::shared_ptr<const simulator::Engine>> engines;  // of the pools
  core::Figure transfer_ms;
  simulator::Served served;  // by closed forms
};

struct Pricing {
  std::vector<Priced> priced;  // in an order that depends on the question alone
  Counts counts;               // all but meeting_slo
};

// Prices every legal candidate that fits, on all cores.
Pricing price_candidates(const Question& question, Resources& resources);

}  // namespace drydock::configurator
