#pragma once
// A GPU as a device: its kernels are those of kernels/cuda/.
#include <memory>

#include "profiler/cuda/experiment.h"
#include "profiler/device.h"

namespace drydock::profiler::cuda {

// Uses the GPU that CUDA counts as `index`, and for communication as many others as an op needs. One to a process, used
// from the thread that made it; experiments go before their device.
class CudaDevice : public Device {
 public:
  // Throws core::Error in one line: no driver, one too old, no such GPU, one that this build has no kernels for.
  explicit CudaDevice(int index);

  Identity identity() override;
  // Datasheet facts where models/data/systems has this GPU by name and memory, else measured: copies and GEMMs.
  models::System system() override;
  std::optional<std::string> why_not(const core::Op& op) override;
  std::unique_ptr<Experiment> prepare(const core::Op& op) override;

  // By CUPTI's records.
  std::vector<KernelPart> parts(const core::Op& op) override;
  std::unique_ptr<CudaExperiment> experiment(const core::Op& op);  // as prepare

 private:
  models::System measured_system();
  void measure_rates(core::Hardware& hardware);
  int index_;
  std::unique_ptr<Nvml> nvml_;
  std::optional<int> others_;  // processes on the GPU before this one used it
  std::unique_ptr<Bench> bench_;
};

}  // namespace drydock::profiler::cuda
