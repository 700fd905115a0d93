// The YAML files of sweep and fleet.
#include "configurator/fleet.h"
#include "configurator/sweep.h"
#include "tests/fuzz/refusable.h"
#include "tests/fuzz/targets.h"

namespace drydock::fuzz {

void sweep(std::string_view input) {
  refusable([&] {
    const configurator::Sweep sweep = configurator::parse_sweep(input, "sweep.yaml");
    const int64_t items = sweep.items();
    expect(items >= 1 && items <= configurator::kMostSweepItems, "a sweep has items");
    for (const int64_t item : {int64_t{0}, items / 2, items - 1})
      expect(!configurator::sweep_item(sweep, item).question.model.empty(), "an item asks for a model");
    const std::string json = configurator::sweep_json(sweep).dump(-1, ' ', true, core::Json::error_handler_t::replace);
    expect(!json.empty(), "a sweep has a canonical text");
  });
}

void fleet(std::string_view input) {
  refusable([&] {
    const configurator::Fleet fleet = configurator::parse_fleet(input, "fleet.yaml");
    expect(!fleet.stock.empty() && !fleet.models.empty(), "a fleet has a stock and models");
    for (const auto& model : fleet.models) expect(*model.workload.rate > 0, "every model has a rate");
  });
}

}  // namespace drydock::fuzz
