#pragma once
// Random operands: zeros would run cooler, and so faster, than what a model multiplies.
#include <cstdint>

#include "core/dtype.h"
#include "kernels/cuda/stream.h"

namespace drydock::profiler::cuda {

// Numbers of `dtype` (fp32, bf16 or fp8) in (-1, 1) by Philox, keyed by `seed`; the last bytes that make no 16 stay.
// `to` is device memory aligned to 16. Asynchronous; throws core::Error if the launch fails.
void fill_random(void* to, core::Dtype dtype, int64_t bytes, uint64_t seed, kernels::cuda::Stream stream);

// Whether this build has machine code for the current device.
bool has_machine_code();

}  // namespace drydock::profiler::cuda
