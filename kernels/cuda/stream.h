#pragma once
// The stream and the shape of a launch, by names that headers can use without CUDA's.
#include <cstddef>

struct CUstream_st;

namespace drydock::kernels::cuda {

using Stream = CUstream_st*;  // cudaStream_t; the emulator takes null

struct LaunchShape {
  unsigned grid_x = 1, grid_y = 1, grid_z = 1;  // blocks; any 0: nothing is launched
  unsigned threads = 32;                        // of a block: a multiple of 32, at most 1024
  size_t shared_bytes = 0;                      // dynamic
  bool programmatic = false;                    // may start before the kernel ahead of it in the stream has ended
  unsigned cluster_x = 1;                       // blocks of a cluster, sm_90 and later; the emulator knows 1 only
};

}  // namespace drydock::kernels::cuda
