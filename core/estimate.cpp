#include "core/estimate.h"

namespace drydock::core {

std::string_view name(Provenance provenance) {
  constexpr std::string_view kNames[kProvenances] = {"measured", "interpolated", "extrapolated", "analytic"};
  return kNames[static_cast<int>(provenance)];
}

}  // namespace drydock::core
