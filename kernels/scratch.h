#pragma once
// Working memory that a thread keeps between kernels: fresh pages for every call would cost more than many calls.
#include <cstddef>
#include <cstdint>
#include <new>

namespace drydock::kernels::cpu {

class ScratchMemory {
 public:
  ScratchMemory() = default;
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;
  ~ScratchMemory() { ::operator delete(data_, kAlignment); }

  float* grow(int64_t wanted) {
    if (wanted > size_) {
      ::operator delete(data_, kAlignment);
      data_ = nullptr, size_ = 0;
      data_ = static_cast<float*>(::operator new(static_cast<size_t>(wanted) * sizeof(float), kAlignment));
      size_ = wanted;
    }
    return data_;
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  float* data_ = nullptr;
  int64_t size_ = 0;
};

// Floats for the calling thread, aligned to a cache line, contents undefined; grown where needed and kept to the end of
// the thread. A kernel may use each slot for one purpose at a time.
template <int kSlot>
float* scratch(int64_t count) {
  thread_local ScratchMemory memory;
  return memory.grow(count);
}

}  // namespace drydock::kernels::cpu
