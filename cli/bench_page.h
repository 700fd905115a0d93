#pragma once
// A measured server for people and for scripts, with its prediction beside it where there is one.
#include <optional>
#include <string>

#include "core/json.h"
#include "runtime/bench_client.h"
#include "simulator/report.h"

namespace drydock::cli {

struct BenchPage {
  std::string what, load;  // which server and model; which load
  uint64_t seed = 1;
  simulator::Targets targets;
  runtime::BenchTotals totals;
  simulator::Summary measured;
  std::optional<simulator::Summary> predicted;
};

// How far from the prediction the figures may be, as shares; infinity: any. Of mean and 95th percentile.
struct Within {
  double ttft = 1e300, tpot = 1e300;
  bool tails = true;  // the percentile too
};
// "5%", "ttft=15%,tpot=10%", with ",mean" behind it for means alone. Throws core::Error naming --within.
Within parse_within(const std::string& text);
// Lines that tell what is outside; empty: nothing is.
std::vector<std::string> outside(const BenchPage& page, const Within& within);

void print_bench(const BenchPage& page);
core::Json bench_json(const BenchPage& page);

}  // namespace drydock::cli
