// The plug-in's entry point (profiler/device.h).
#include <cstring>
#include <exception>
#include <new>

#include "profiler/cuda/device.h"

namespace {

void tell(const char* text, char* error, size_t bytes) {
  if (error == nullptr || bytes == 0) return;
  std::strncpy(error, text, bytes - 1);
  error[bytes - 1] = '\0';
}

}  // namespace

extern "C" __attribute__((visibility("default"))) drydock::profiler::Device* drydock_open_device(int index, char* error,
                                                                                                 size_t error_bytes) {
  try {
    return new drydock::profiler::cuda::CudaDevice(index);
  } catch (const std::bad_alloc&) {
    tell("out of memory", error, error_bytes);
  } catch (const std::exception& failure) {
    tell(failure.what(), error, error_bytes);
  } catch (...) {
    tell("an unknown failure", error, error_bytes);
  }
  return nullptr;
}
