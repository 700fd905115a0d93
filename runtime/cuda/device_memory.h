#pragma once
// Memory of the current device and pinned memory of the host, freed with what holds it.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

namespace drydock::runtime::cuda {

// Throws core::Error, with CUDA's own words, when a call failed; `what` is what was tried.
void check(cudaError_t status, const char* what);

enum class Place { device, pinned };

template <Place kPlace>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);  // throws core::Error when there is not as much
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_), std::swap(bytes_, other.bytes_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  size_t size() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};
using DeviceBuffer = Buffer<Place::device>;
using PinnedBuffer = Buffer<Place::pinned>;

}  // namespace drydock::runtime::cuda
