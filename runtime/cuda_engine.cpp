#include "runtime/cuda_engine.h"

#include <dlfcn.h>

#include <array>

#include "core/error.h"

namespace drydock::runtime {

namespace {

// The entry point `name` of the plug-in beside the program.
void* plug_in_entry(const char* name) {
  std::error_code status;
  const std::filesystem::path file =
      std::filesystem::read_symlink("/proc/self/exe", status).parent_path() / "libdrydock_cuda.so";
  if (!std::filesystem::exists(file, status))
    throw core::Error("--engine cuda: " + file.string() +
                      " is not there; build preset cuda on a machine with a CUDA toolkit, or use --engine cpu");
  // Stays open: the engine's code lives in it.
  void* const library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw core::Error("--engine cuda: " + std::string(::dlerror()));
  void* const entry = ::dlsym(library, name);
  if (entry == nullptr) throw core::Error("--engine cuda: " + file.string() + " is of another version of drydock");
  return entry;
}

}  // namespace

void check_cuda(int device) {
  const auto check = reinterpret_cast<CheckGpu>(plug_in_entry(kEngineCheckPoint));
  std::array<char, 1024> error{};
  if (!check(device, error.data(), error.size())) throw core::Error("--engine cuda: " + std::string(error.data()));
}

std::string new_cuda_group() {
  const auto make = reinterpret_cast<NewGroup>(plug_in_entry(kNewGroupPoint));
  std::array<char, 1024> id{}, error{};
  const int bytes = make(id.data(), id.size(), error.data(), error.size());
  if (bytes < 0) throw core::Error("--engine cuda: " + std::string(error.data()));
  return {id.data(), static_cast<size_t>(bytes)};
}

std::unique_ptr<Engine> open_cuda_engine(const std::filesystem::path& model_dir, const EngineOptions& options) {
  const auto open = reinterpret_cast<OpenEngine>(plug_in_entry(kEngineEntryPoint));
  std::array<char, 1024> error{};
  std::unique_ptr<Engine> engine(open(model_dir.c_str(), &options, error.data(), error.size()));
  if (!engine) throw core::Error("--engine cuda: " + std::string(error.data()));
  return engine;
}

}  // namespace drydock::runtime
