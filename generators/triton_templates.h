#pragma once
// The chart's templates, the same for every plan. What the values are: triton_values.cpp.
#include <span>
#include <string_view>

namespace drydock::generators {

struct ChartFile {
  std::string_view path, text, what;  // path: within the chart
};
std::span<const ChartFile> triton_chart_files();

}  // namespace drydock::generators
