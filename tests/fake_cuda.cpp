// A driver of the version in $DRYDOCK_FAKE_DRIVER (12040 is 12.4) on a machine without a GPU: as much of libcuda as
// CUDA's runtime asks for before it gives up.
#include <dlfcn.h>

#include <cstdlib>

extern "C" {

int cuInit(unsigned) { return 100; }  // CUDA_ERROR_NO_DEVICE

int cuDriverGetVersion(int* version) {
  const char* const text = std::getenv("DRYDOCK_FAKE_DRIVER");
  *version = text == nullptr ? 0 : std::atoi(text);
  return 0;
}

int cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* status) {
  void* const here = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  *function = here == nullptr ? nullptr : ::dlsym(here, name);
  if (status != nullptr) *status = *function == nullptr ? 1 : 0;
  return *function == nullptr ? 500 : 0;  // CUDA_ERROR_NOT_FOUND
}

int cuGetProcAddress(const char* name, void** function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}
}
