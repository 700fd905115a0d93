#include "kernels/take_drawn.h"

#include "kernels/cpu.h"
#include "kernels/reference.h"

namespace drydock::kernels {

std::vector<int32_t> reference::take_drawn(const TakeDrawn& op) {
  std::vector<int32_t> out;
  for (int64_t t = 0; t < op.tokens; ++t) {
    const int64_t source = op.sources[t];
    out.push_back(source >= 0 && source < op.drawn_count ? op.drawn[source] : op.ids[t]);
  }
  return out;
}

void cpu::take_drawn(const TakeDrawn& op) {
  for (int64_t t = 0; t < op.tokens; ++t)
    if (op.sources[t] >= 0 && op.sources[t] < op.drawn_count) op.ids[t] = op.drawn[op.sources[t]];
}

}  // namespace drydock::kernels
