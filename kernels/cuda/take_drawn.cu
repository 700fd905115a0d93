#include "kernels/cuda/simt.h"
#include "kernels/cuda/take_drawn.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kTakeThreads = 128;

__global__ void __launch_bounds__(kTakeThreads)
    take_drawn_kernel(int32_t* ids, const int32_t* sources, const int32_t* drawn, int64_t tokens, int64_t drawn_count) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kTakeThreads + threadIdx.x;
  dependency_wait();
  if (token < tokens) {
    const int64_t source = sources[token];
    if (source >= 0 && source < drawn_count) ids[token] = drawn[source];
  }
  dependency_launch();
}

}  // namespace

void take_drawn(const TakeDrawn& op, Stream stream) {
  if (op.tokens <= 0) return;
  LaunchShape shape{.threads = kTakeThreads, .programmatic = true};
  shape.grid_x = static_cast<unsigned>((op.tokens + kTakeThreads - 1) / kTakeThreads);
  launch(take_drawn_kernel, shape, stream, op.ids, op.sources, op.drawn, op.tokens, op.drawn_count);
}

}  // namespace drydock::kernels::cuda
