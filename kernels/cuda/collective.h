#pragma once
// Communication between GPUs by NCCL, and memory shared between processes for peer_all_reduce.h. Host code. All
// operations are asynchronous on `stream`; counts are elements. Throws core::Error, with NCCL's own words, on failure.
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

// One rank of a group, on the device that was current when it was made.
class Communicator {
 public:
  // Made by one rank and given to the others: bytes, not text.
  static std::string new_id();

  // Waits until all `ranks` have come.
  Communicator(const std::string& id, int rank, int ranks);
  ~Communicator();
  Communicator(Communicator&&) = default;
  Communicator& operator=(Communicator&&) = default;
  // What is under way ends, as if it failed, and nothing else works from now on but the destructor. Another thread's
  // call is allowed while operations run: it is how a rank stops waiting for one that is no more.
  void abort() noexcept;
  // One per device, in one process.
  static std::vector<Communicator> of_devices(const std::vector<int>& devices);

  int rank() const;
  int ranks() const;

  void all_reduce(const void* in, void* out, int64_t count, core::Dtype dtype, Stream stream);
  // out (ranks, count); in (count).
  void all_gather(const void* in, void* out, int64_t count, core::Dtype dtype, Stream stream);
  // out (count) of the sums of in (ranks, count).
  void reduce_scatter(const void* in, void* out, int64_t count, core::Dtype dtype, Stream stream);
  // in (ranks, count): part r goes to rank r; out (ranks, count): part r came from rank r.
  void all_to_all(const void* in, void* out, int64_t count, core::Dtype dtype, Stream stream);
  // As all_to_all with parts of different sizes, one after another: dispatch and combine of experts. Host arrays
  // (ranks); what r sends to s must be what s receives from r.
  void all_to_all(const void* in, const std::vector<int64_t>& sent, void* out, const std::vector<int64_t>& received,
                  core::Dtype dtype, Stream stream);
  void send(const void* in, int64_t count, core::Dtype dtype, int to, Stream stream);
  void receive(void* out, int64_t count, core::Dtype dtype, int from, Stream stream);

  // Several operations as one, on one or more communicators of this process.
  class Group {
   public:
    Group();
    ~Group() noexcept(false);
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;
  };

 private:
  struct Closer {
    void operator()(void* communicator) const;
  };
  void* usable() const;
  explicit Communicator(void* communicator);
  std::unique_ptr<void, Closer> communicator_;
  std::unique_ptr<std::atomic<bool>> aborted_;
};

// A handle of device memory that another process of this machine can open: bytes. `memory` is what cudaMalloc gave.
std::string export_memory(void* memory);
// The address here of another process's memory. Closed when the result is destroyed.
std::shared_ptr<void> open_memory(const std::string& handle);

// Lets the current device read and write the memory of `peer`; false when it cannot.
bool enable_peer(int peer);

}  // namespace drydock::kernels::cuda
