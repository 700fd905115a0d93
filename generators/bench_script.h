#pragma once
// The Python program that turns results of serving benchmarks into the CSV of `drydock validate`.
#include <string_view>

namespace drydock::generators {

// Standard library only; reads deployment.json beside it for the columns that the result does not hold.
extern const std::string_view kToCsv;

}  // namespace drydock::generators
