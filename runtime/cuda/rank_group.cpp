#include "runtime/cuda/rank_group.h"

#include <chrono>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "core/file.h"

namespace drydock::runtime::cuda {
namespace {

using kernels::cuda::Communicator;

std::string wait_for_id(const std::filesystem::path& file) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!std::filesystem::exists(file)) {
    if (std::chrono::steady_clock::now() > until)
      throw core::Error("engine: " + file.string() + " has not come within a minute; is rank 0 running?");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return core::read_file(file, 4096);
}

}  // namespace

RankGroup::RankGroup(int rank, int ranks, const std::filesystem::path& id_file, cudaStream_t stream)
    : rank_(rank), ranks_(ranks), stream_(stream), header_(sizeof(StepHeader)), host_header_(sizeof(StepHeader)) {
  if (rank < 0 || rank >= ranks) throw core::Error("engine: a rank from 0 to ranks - 1 is right");
  std::string id;
  if (rank == 0) {
    id = Communicator::new_id();
    core::write_file(id_file, id);
  } else {
    id = wait_for_id(id_file);
  }
  communicator_ = std::make_unique<Communicator>(id, rank, ranks);
  std::error_code gone;
  if (rank == 0) std::filesystem::remove(id_file, gone);  // all have come
}

void RankGroup::send(const StepHeader& header, const std::byte* arrays) {
  std::memcpy(host_header_.data(), &header, sizeof header);
  check(cudaMemcpyAsync(header_.data(), host_header_.data(), sizeof header, cudaMemcpyHostToDevice, stream_),
        "copying to the GPU");
  for (const bool of_header : {true, false}) {
    const Communicator::Group together;
    for (int rank = 1; rank < ranks_; ++rank) {
      if (of_header)
        communicator_->send(header_.data(), sizeof header, core::Dtype::int8, rank, stream_);
      else if (header.array_bytes > 0)
        communicator_->send(arrays, header.array_bytes, core::Dtype::int8, rank, stream_);
    }
  }
  // The host's copy of the header may be written again.
  check(cudaStreamSynchronize(stream_), "telling the ranks");
}

StepHeader RankGroup::receive_header() {
  communicator_->receive(header_.data(), sizeof(StepHeader), core::Dtype::int8, 0, stream_);
  check(cudaMemcpyAsync(host_header_.data(), header_.data(), sizeof(StepHeader), cudaMemcpyDeviceToHost, stream_),
        "copying from the GPU");
  check(cudaStreamSynchronize(stream_), "waiting for rank 0");
  StepHeader header;
  std::memcpy(&header, host_header_.data(), sizeof header);
  return header;
}

void RankGroup::receive_arrays(std::byte* arrays, int64_t bytes) {
  communicator_->receive(arrays, bytes, core::Dtype::int8, 0, stream_);
}

}  // namespace drydock::runtime::cuda
