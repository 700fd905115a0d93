#pragma once
// Matrix products by cuBLASLt: bf16, and fp8 with tensor, row or block scales (both operands alike). Host code.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/stream.h"
#include "kernels/gemm.h"

namespace drydock::kernels::cuda {

// One way of cuBLASLt to do one product, as text that a database can keep: version of the library, then its
// algorithm's 64 bytes in hexadecimal. Of use on the same kind of GPU and version only.
using GemmAlgorithm = std::string;

struct TimedAlgorithm {
  GemmAlgorithm algorithm;
  double time_us = 0;  // median of one launch
};

// A handle of cuBLASLt on the current device with its workspace. For one stream at a time.
class CublasGemm {
 public:
  // Throws core::Error when cuBLASLt or the memory cannot be had.
  explicit CublasGemm(size_t workspace_bytes = size_t{64} << 20U);
  ~CublasGemm();
  CublasGemm(const CublasGemm&) = delete;
  CublasGemm& operator=(const CublasGemm&) = delete;

  // Asynchronous. `algorithm` empty, of another version, or of no use for this shape: the heuristic's first choice.
  // Throws core::Error when cuBLASLt has no algorithm, which is so for block scales but on sm_90, and for fp8 before
  // sm_89: use tiled_gemm (grouped_gemm.h) there.
  void run(const Gemm& op, Stream stream, const GemmAlgorithm& algorithm = {});

  // Measures up to `candidates` of the heuristic's choices on op's own data, `repeats` launches each after a first one,
  // fastest first; synchronises the stream. For figures worth keeping measure the winners again as any kernel is.
  std::vector<TimedAlgorithm> measure(const Gemm& op, Stream stream, int candidates = 16, int repeats = 5);

  // "13.0.2": part of every algorithm's text.
  static std::string version();

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace drydock::kernels::cuda
