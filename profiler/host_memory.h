#pragma once
// Memory of this host filled at random, and copies of it to take in turn so that the caches do not help.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/dtype.h"

namespace drydock::profiler {

int64_t last_level_cache_bytes();  // that one core of this host can fill; 32 MiB where it does not tell
double host_memory_bytes();        // in all
double free_memory_bytes();        // that can be had without swapping

// Numbers of `dtype` (fp32, bf16 or fp8) in (-1, 1), 64-byte aligned; repeats itself after 1 MiB. From 1 MiB on it asks
// for huge pages, as the CPU engine does for weights and KV cache: with small ones a core reads them slower.
class RandomMemory {
 public:
  RandomMemory(core::Dtype dtype, int64_t bytes);
  char* data() const { return data_.get(); }
  core::Dtype dtype() const { return dtype_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    size_t mapped;  // bytes from mmap; 0: from the heap
    void operator()(char* p) const;
  };
  core::Dtype dtype_;
  int64_t bytes_;
  std::unique_ptr<char, Free> data_;
};

// As many copies of `bytes` as eight times the last-level cache holds, and one more; one when they are that large. (Of
// a cyclic pass over F bytes a cache of C that evicts at random keeps the share h = exp(-(1 - h) F / C): a fifth when F
// is 2 C, a fiftieth when it is 4 C; those that keep what was of use keep more.) To be read only: the memory goes from
// one rotation to the next, as making it anew takes longer than most measurements.
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
