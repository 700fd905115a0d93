#pragma once
// Memory that kernels can use: the host's own under the emulator, a GPU's otherwise. One test source serves both.
#include <cstdint>
#include <functional>
#include <vector>

#ifdef DRYDOCK_SIMT_EMULATOR
#include "tests/simt/simt_emulator.h"
#else
#include <cuda_runtime_api.h>

#include <string>

#include "core/error.h"
#endif

namespace drydock::tests {

#ifdef DRYDOCK_SIMT_EMULATOR

// Of trivially copyable elements. Exactly as large as its content, so that the address sanitizer sees a step beyond it.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(std::vector<T> content) : content_(std::move(content)) {}
  explicit OnDevice(size_t count) : content_(count) {}
  T* data() { return content_.data(); }
  std::vector<T> read() const { return content_; }  // after everything launched before

 private:
  std::vector<T> content_;
};

// Runs `test` with the threads of a block in three orders, which should not matter.
inline void in_every_order(const std::function<void()>& test) {
  using kernels::cuda::emulator::Order;
  for (const Order order : {Order::forward, Order::reverse, Order::random}) {
    kernels::cuda::emulator::set_order(order);
    test();
  }
  kernels::cuda::emulator::set_order(Order::forward);
}

#else

template <typename T>
class OnDevice {
 public:
  explicit OnDevice(std::vector<T> content) : count_(content.size()) {
    allocate();
    check(cudaMemcpy(memory_, content.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  explicit OnDevice(size_t count) : count_(count) {
    allocate();
    check(cudaMemset(memory_, 0, count_ * sizeof(T)));
  }
  ~OnDevice() { cudaFree(memory_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  T* data() { return static_cast<T*>(memory_); }
  std::vector<T> read() const {
    std::vector<T> out(count_);
    check(cudaDeviceSynchronize());
    check(cudaMemcpy(out.data(), memory_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  static void check(cudaError_t status) {
    if (status != cudaSuccess) throw core::Error(std::string("CUDA: ") + cudaGetErrorString(status));
  }
  void allocate() { check(cudaMalloc(&memory_, count_ * sizeof(T) + 16)); }
  size_t count_;
  void* memory_ = nullptr;
};

inline void in_every_order(const std::function<void()>& test) { test(); }

#endif

}  // namespace drydock::tests
