#pragma once
// The path of grouped products that needs Hopper's instructions; grouped_products.h is what chooses between paths.
#include "kernels/cuda/stream.h"
#include "kernels/gemm.h"

namespace drydock::kernels::cuda {

#ifdef DRYDOCK_SIMT_EMULATOR
// The emulator knows neither wgmma nor TMA.
inline bool can_group_sm90(const GroupedGemm&) { return false; }
inline void grouped_gemm_sm90(const GroupedGemm&, Stream) {}
#else
// What grouped_gemm does, on an sm_90 device only; of products scaled by block n has to be a multiple of 128.
bool can_group_sm90(const GroupedGemm& op);

// As grouped_gemm; rows of a beyond starts[groups] may be read, and are not used.
void grouped_gemm_sm90(const GroupedGemm& op, Stream stream);
#endif

}  // namespace drydock::kernels::cuda
