#pragma once
// Memory of this host filled at random, and copies of it to take in turn so that the caches do not help.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>

#include "core/dtype.h"

namespace drydock::profiler {

int64_t last_level_cache_bytes();  // of this host; 32 MiB where it does not tell
double host_memory_bytes();        // in all
double free_memory_bytes();        // that can be had without swapping

// Numbers of `dtype` (fp32, bf16 or fp8) in (-1, 1), 64-byte aligned; repeats itself after 1 MiB.
class RandomMemory {
 public:
  RandomMemory(core::Dtype dtype, int64_t bytes);
  char* data() const { return data_.get(); }
  core::Dtype dtype() const { return dtype_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  core::Dtype dtype_;
  int64_t bytes_;
  std::unique_ptr<char, Free> data_;
};

// As many copies of `bytes` as twice the last-level cache holds, and one more; one when they are that large. To be read
// only: the memory goes from one rotation to the next, as making it anew takes longer than most measurements.
class Rotation {
 public:
  Rotation(core::Dtype dtype, int64_t bytes);
  ~Rotation();
  Rotation(Rotation&&) noexcept = default;
  Rotation& operator=(Rotation&&) = delete;
  char* at(int64_t turn) const { return memory_.data() + turn % copies_ * stride_; }
  int64_t copies() const { return copies_; }

 private:
  int64_t stride_, copies_;
  RandomMemory memory_;
};

// Bytes a rotation of `bytes` takes.
int64_t rotated_bytes(int64_t bytes);

}  // namespace drydock::profiler
