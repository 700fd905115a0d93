// libFuzzer's entry for the target that the build names.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  drydock::fuzz::DRYDOCK_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
