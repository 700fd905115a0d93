#pragma once
// One op on a GPU: the fastest of its kernels, replayed as a graph.
#include <memory>
#include <string>
#include <vector>

#include "profiler/cuda/cupti.h"
#include "profiler/cuda/energy.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/nvml.h"
#include "profiler/cuda/throttle.h"
#include "profiler/device.h"

namespace drydock::profiler::cuda {

// A candidate and its graph.
struct Contender {
  Candidate candidate;
  Replay replay;
  double us = 0;  // the least of a few replays
};

class CudaExperiment : public Experiment {
 public:
  // Warms up, lets the candidates compete, and keeps the fastest. `nvml` outlives it. Throws core::Error.
  CudaExperiment(std::vector<Candidate> candidates, const Nvml& nvml);

  // One replay; pauses first when the last one was throttled.
  Reading sample() override;
  // Where samples went on for a second without a pause.
  std::optional<double> joules() override;
  // "small_gemm", "cublasLt 13.0.2:...", "permute+gather+..."; what the database calls the kernel.
  std::string kernel() override { return best_->candidate.kernel; }
  int64_t launches() const { return best_->replay.launches(); }  // of one sample

  // Launches the op `runs` times under CUPTI. After the samples: CUPTI slows what runs beside it.
  std::vector<KernelSum> sums(int runs = 5);

 private:
  void compete(Contender next);
  void keep_energy(double seconds);
  const Nvml& nvml_;
  std::unique_ptr<Contender> best_;
  ThrottleJudge judge_;
  EnergyWindow energy_;
};

}  // namespace drydock::profiler::cuda
