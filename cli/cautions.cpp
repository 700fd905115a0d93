#include <fmt/format.h>

#include <set>

#include "cli/answer.h"
#include "configurator/space.h"

namespace drydock::cli {

std::vector<std::string> cautions(const Question& q, configurator::Resources& resources) {
  const models::Architecture& architecture = resources.model(q.model);
  std::vector<std::string> out = architecture.warnings;
  const models::Precision precision = models::choose_precision(architecture, q.precision, q.kv_precision);
  std::set<core::Dtype> formats = {precision.gemm};
  if (configurator::has_experts(architecture)) formats.insert(precision.moe);
  for (const std::string& system : std::set<std::string>{q.system, q.decode_system}) {
    if (system.empty()) continue;
    for (const core::Dtype format : formats) {
      using core::Dtype;
      const auto has = [&](Dtype d) {
        return resources.system(system).hardware.flops_per_s[static_cast<size_t>(d)] > 0;
      };
      const bool computed = format == Dtype::fp8 || format == Dtype::fp8_block || format == Dtype::nvfp4 ||
                            format == Dtype::int8;  // of the others the weights alone are small
      if (!computed || has(format) || (format == Dtype::fp8_block && has(Dtype::fp8))) continue;
      out.push_back(
          fmt::format("{} has no {} arithmetic: the times are those of weights that are unpacked as they are "
                      "read, which not every backend can do",
                      system, core::name(format)));
    }
  }
  return out;
}

}  // namespace drydock::cli
