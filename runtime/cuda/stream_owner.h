#pragma once
// A stream and an event of the current device, freed with what holds them.
#include "runtime/cuda/device_memory.h"

namespace drydock::runtime::cuda {

class StreamOwner {
 public:
  StreamOwner() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream"); }
  ~StreamOwner() { cudaStreamDestroy(stream_); }
  StreamOwner(const StreamOwner&) = delete;
  StreamOwner& operator=(const StreamOwner&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class EventOwner {
 public:
  EventOwner() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "an event"); }
  ~EventOwner() { cudaEventDestroy(event_); }
  EventOwner(const EventOwner&) = delete;
  EventOwner& operator=(const EventOwner&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace drydock::runtime::cuda
