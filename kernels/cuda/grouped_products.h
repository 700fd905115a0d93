#pragma once
// The ways to compute a grouped product (kernels/gemm.h), of which measuring finds the fastest for a shape. Host code.
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/stream.h"
#include "kernels/gemm.h"

namespace drydock::kernels::cuda {

// As text that a database can keep:
//   grouped_gemm        ours by mma.sync, any GPU
//   grouped_gemm_sm90   ours by wgmma and TMA
//   cublas 13.0.2       cublasGemmGroupedBatchedEx of that version; of use with that version only
using GroupedWay = std::string;

// Whether the test of grouped_gemm_sm90 has passed on a GPU; until then nobody but that test is offered it.
inline constexpr bool kGroupedSm90HasPassed = false;

struct TimedWay {
  GroupedWay way;
  double time_us = 0;  // median of one call, what the host does before the launch included
};

// Holds what cuBLAS needs on the current device. For one stream at a time.
class GroupedProducts {
 public:
  GroupedProducts();
  ~GroupedProducts();
  GroupedProducts(const GroupedProducts&) = delete;
  GroupedProducts& operator=(const GroupedProducts&) = delete;

  // Those that can do `op` on the current device, ours first.
  std::vector<GroupedWay> ways(const GroupedGemm& op, bool with_sm90 = kGroupedSm90HasPassed) const;

  // Asynchronous but for cuBLAS, which wants groups' sizes on the host: without op.host_starts it waits for the stream
  // to read them. An empty way, or one that can't do `op`, is grouped_gemm. Throws core::Error when a launch fails.
  void run(const GroupedGemm& op, Stream stream, const GroupedWay& way = {});

  // Whether a call of that way does something on the host that a captured graph would leave out.
  static bool needs_host(const GroupedWay& way);

  // All ways on op's own data, `repeats` calls each after a first one, fastest first; synchronises
  // the stream. A way that fails is left out.
  std::vector<TimedWay> measure(const GroupedGemm& op, Stream stream, int repeats = 5);

 private:
  struct Cublas;
  std::unique_ptr<Cublas> cublas_;  // made when first used: it takes long and much memory
};

}  // namespace drydock::kernels::cuda
