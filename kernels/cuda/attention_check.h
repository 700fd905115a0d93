#pragma once
// What the attention kernels cannot compute, told before a launch.
#include "kernels/attention.h"

namespace drydock::kernels::cuda {

// Each throws core::Error that starts with `op`.
void check_kv(const PagedKv& kv, int64_t heads, const char* op);
void check_numbers(core::Dtype dtype, float scale, const char* op);
// Of a grid's y and z.
void check_grid(int64_t extent, const char* name, const char* op);

}  // namespace drydock::kernels::cuda
