#include "kernels/convert.h"

#include "kernels/isa.h"

namespace drydock::kernels {

void widen(const void* in, core::Dtype dtype, int64_t count, float scale, float* out) {
  cpu::isa().widen(in, dtype, count, scale, out);
}

void narrow(const float* in, int64_t count, float divisor, core::Dtype dtype, void* out) {
  cpu::isa().narrow(in, count, divisor, dtype, out);
}

}  // namespace drydock::kernels
