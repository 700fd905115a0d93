#define DRYDOCK_ISA baseline
#define DRYDOCK_ISA_NAME "baseline"
// In this order: each builds on those before.
// clang-format off
#include "kernels/isa_simd.h"
#include "kernels/isa_gemm.h"
#include "kernels/isa_attention.h"
#include "kernels/isa_recurrent.h"
#include "kernels/isa_rows.h"
// clang-format on
