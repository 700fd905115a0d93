#pragma once
// What the reference's files share: rows read as doubles, rounding to a storage type.
#include <vector>

#include "kernels/matrix.h"

namespace drydock::kernels::reference {

// `count` elements from `start` on.
std::vector<double> elements(const void* data, core::Dtype dtype, int64_t start, int64_t count);

// `number` as the type would store it, unscaled.
double rounded(double number, core::Dtype dtype);

}  // namespace drydock::kernels::reference
