#include "profiler/device.h"

#include <dlfcn.h>

#include <array>
#include <filesystem>

#include "core/error.h"

namespace drydock::profiler {
namespace {

std::filesystem::path plugin_file() {
  std::error_code status;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", status);
  return program.parent_path() / kPlugin;
}

}  // namespace

std::unique_ptr<Device> open_cuda_device(int index) {
  const std::filesystem::path file = plugin_file();
  std::error_code status;
  if (!std::filesystem::exists(file, status))
    throw core::Error("--target cuda: " + file.string() +
                      " is not there; build preset cuda on a machine with a CUDA toolkit, or use --target cpu");
  // Stays open: the device's code lives in it.
  void* const library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw core::Error("--target cuda: " + std::string(::dlerror()));
  const auto open = reinterpret_cast<OpenDevice>(::dlsym(library, kEntryPoint));
  if (open == nullptr) throw core::Error("--target cuda: " + file.string() + " is of another version of drydock");
  std::array<char, 512> error{};
  std::unique_ptr<Device> device(open(index, error.data(), error.size()));
  if (!device) throw core::Error("--target cuda: " + std::string(error.data()));
  return device;
}

}  // namespace drydock::profiler
