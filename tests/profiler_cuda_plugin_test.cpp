// The plug-in as `drydock` opens it. Where there is no driver it must load all the same, and say so.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <string>

#include "profiler/device.h"

namespace drydock::profiler {
namespace {

struct Opened {
  std::unique_ptr<Device> device;
  std::string error;
};

Opened open(int index, size_t error_bytes = 512) {
  void* const library = ::dlopen(DRYDOCK_CUDA_PLUGIN, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) MESSAGE(::dlerror());
  REQUIRE(library != nullptr);
  const auto entry = reinterpret_cast<OpenDevice>(::dlsym(library, kEntryPoint));
  const bool is_there = entry != nullptr;
  REQUIRE(is_there);
  std::array<char, 512> error{};
  Opened out;
  out.device.reset(entry(index, error.data(), error_bytes));
  out.error = error.data();
  return out;
}

// Set where fake_cuda.cpp stands in for the driver.
std::string fake_driver() {
  const char* const version = std::getenv("DRYDOCK_FAKE_DRIVER");
  return version == nullptr ? "" : version;
}

bool has_driver() { return ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) != nullptr; }

TEST_CASE("the plug-in loads anywhere and tells in one line why there is no device") {
  const Opened first = open(0);
  CHECK((first.device != nullptr) == first.error.empty());
  CHECK(first.error.find('\n') == std::string::npos);
  if (!has_driver()) CHECK(first.error == "libcuda.so.1 can't be opened: is the NVIDIA driver installed?");
}

TEST_CASE("a driver that is too old, and a machine without a GPU") {
  if (fake_driver() == "12040")
    CHECK(open(0).error ==
          "the driver is for CUDA 12.4, this build for CUDA 13.0: want a newer driver (580 or later for CUDA 13)");
  if (fake_driver() == "13000") CHECK(open(0).error == "no GPU: no CUDA-capable device is detected");
}

TEST_CASE("an index that no machine has") {
  const Opened none = open(100'000);
  CHECK(none.device == nullptr);
  CHECK_FALSE(none.error.empty());
  CHECK(open(-1).device == nullptr);
}

TEST_CASE("a short buffer cuts the reason off; none at all is no failure") {
  const Opened cut = open(100'000, 8);
  CHECK(cut.device == nullptr);
  CHECK(cut.error.size() == 7);
  CHECK(open(100'000, 0).error.empty());
}

}  // namespace
}  // namespace drydock::profiler
