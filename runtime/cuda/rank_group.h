#pragma once
// The ranks of a tensor-parallel engine, one process each: rank 0 is asked for steps, and tells the others what they
// are.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "kernels/cuda/collective.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/step_arrays.h"

namespace drydock::runtime::cuda {

// Before every step: what it is, or that there will be no more.
struct StepHeader {
  StepExtents extents;
  int64_t array_bytes = 0;
  int64_t padded = 0, last = 0;  // flags: extents are padded_extents; rank 0 has ended
};

class RankGroup {
 public:
  // Waits for the others: rank 0 writes `id_file`, which the others read within a minute.
  RankGroup(int rank, int ranks, const std::filesystem::path& id_file, cudaStream_t stream);

  kernels::cuda::Communicator& communicator() { return *communicator_; }
  bool leads() const { return rank_ == 0; }

  // Rank 0: sends header, then `arrays` on the device (header.array_bytes).
  void send(const StepHeader& header, const std::byte* arrays);
  // The others: waits for the header; then receive_arrays().
  StepHeader receive_header();
  void receive_arrays(std::byte* arrays, int64_t bytes);

 private:
  int rank_, ranks_;
  cudaStream_t stream_;
  std::unique_ptr<kernels::cuda::Communicator> communicator_;
  DeviceBuffer header_;
  PinnedBuffer host_header_;
};

}  // namespace drydock::runtime::cuda
