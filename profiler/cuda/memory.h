#pragma once
// Device memory of one experiment, freed together.
#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "profiler/cuda/runtime.h"

namespace drydock::profiler::cuda {

// Copies to take in turn, so that L2 does not help; sizes and number as in plan.h.
struct Rotation {
  char* data = nullptr;
  int64_t stride = 0, copies = 1;
  char* at(int64_t turn) const { return data + turn % copies * stride; }
};

// On one GPU. Contents are in place before anything that the lane's stream runs later. All throw core::Error when
// memory can't be had.
class Memory {
 public:
  Memory(Lane lane, int64_t l2_bytes) : lane_(lane), l2_bytes_(l2_bytes) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* random(core::Dtype dtype, int64_t bytes);
  void* zeros(int64_t bytes);
  Rotation rotation(core::Dtype dtype, int64_t bytes);
  template <typename T>
  T* put(const std::vector<T>& content) {
    return static_cast<T*>(put(content.data(), static_cast<int64_t>(content.size() * sizeof(T))));
  }

  const Lane& lane() const { return lane_; }
  int64_t bytes() const { return bytes_; }  // taken so far

 private:
  void* take(int64_t bytes);
  void* put(const void* content, int64_t bytes);

  Lane lane_;
  int64_t l2_bytes_, bytes_ = 0;
  std::vector<void*> blocks_;
};

}  // namespace drydock::profiler::cuda
