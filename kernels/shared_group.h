#pragma once
// Collectives between processes of one machine, over memory that they share: what NCCL is to GPUs. Host memory.
//
// The memory is anonymous (memfd_create): it has no name that others could open, and the kernel frees it with the last
// process that holds it, however that ends. Sums are made in the order of the ranks, in fp32, and rounded once, so that
// every rank has the same bits.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/matrix.h"
#include "kernels/threads.h"

namespace drydock::kernels::cpu {

inline constexpr int kMostSharedRanks = 64;

// One rank of a group. All ranks make the same calls in the same order, each from one thread at a time. A call throws
// core::Error when another rank has not come within `limit` (it died, or hangs), when somebody called fail(), and when
// ranks are found to make different calls; the group is of no use from then on.
class SharedGroup {
 public:
  // Memory for a group of 2 to kMostSharedRanks: a descriptor that is closed by exec, and that the ranks' processes
  // inherit. Throws core::Error.
  static int create(int ranks);

  // Takes the descriptor, and closes it. Throws core::Error when it is no such memory.
  SharedGroup(int descriptor, int rank, std::chrono::milliseconds limit = std::chrono::seconds(30));
  ~SharedGroup();
  SharedGroup(const SharedGroup&) = delete;
  SharedGroup& operator=(const SharedGroup&) = delete;

  int rank() const { return rank_; }
  int ranks() const { return ranks_; }

  // matrix[i] = sum over ranks of theirs. fp32 or bf16; no gaps between rows. `threads` of this rank share the work.
  void all_reduce(const Matrix& matrix, Threads& threads);
  // whole (rows, ranks * cols): row r is row r of every rank's own (rows, cols), one after the other; fp32 or bf16, no
  // gaps between rows. Without data of `whole` this rank only gives.
  void all_gather(const Matrix& own, const Matrix& whole, Threads& threads);
  // Rank `root`'s bytes are everybody's.
  void broadcast(void* data, int64_t bytes, int root);

  // No call of any rank waits from now on: they throw. Any thread, at any time.
  void fail() noexcept;

 private:
  struct Shared;

  std::byte* slot(int rank) const;
  void meet(uint64_t tag);
  void wait_for(int rank);
  void sum(std::byte* out, core::Dtype dtype, int64_t begin, int64_t count) const;
  void for_each_piece(int64_t bytes, const std::function<void(int64_t begin, int64_t length)>& use);

  int rank_, ranks_ = 0, spins_ = 0;
  std::chrono::milliseconds limit_;
  Shared* shared_ = nullptr;
  size_t bytes_ = 0;       // of the mapping
  uint32_t meetings_ = 0;  // so far
  int buffer_ = 0;         // of the two, in use
};

}  // namespace drydock::kernels::cpu
