#include "kernels/sampling.h"

#include "kernels/philox.h"

namespace drydock::kernels {

float philox_uniform(uint64_t seed, uint64_t counter) {
  const PhiloxBlock block = {{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0}};
  const uint32_t word = philox(block, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)).word[0];
  return static_cast<float>(word >> 8) * 0x1p-24F;
}

}  // namespace drydock::kernels
