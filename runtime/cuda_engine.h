#pragma once
// The engine on a GPU, which lives in the plug-in libdrydock_cuda.so beside the program.
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>

#include "runtime/cpu_engine.h"

namespace drydock::runtime {

// As make_cpu_engine, on GPU options.device. Throws core::Error when the plug-in or a GPU is missing, saying which.
std::unique_ptr<Engine> open_cuda_engine(const std::filesystem::path& model_dir, const EngineOptions& options);

// What RankShare::meet gives to the ranks of one group: bytes. Throws core::Error.
std::string new_cuda_group();

// Throws core::Error, one line, when the plug-in, the driver or GPU `device` is missing. Takes no memory of a GPU.
void check_cuda(int device);

// What the plug-in exports, under these names. check_cuda's: false: `error` says why.
inline constexpr const char* kEngineCheckPoint = "drydock_check_gpu";
using CheckGpu = bool (*)(int device, char* error, size_t error_bytes);
// new_cuda_group's. How many bytes the id has; below 0: `error` says why.
inline constexpr const char* kNewGroupPoint = "drydock_new_group";
using NewGroup = int (*)(char* id, size_t id_bytes, char* error, size_t error_bytes);
// open_cuda_engine's. Null: `error` says why, in at most `error_bytes` with the final 0.
inline constexpr const char* kEngineEntryPoint = "drydock_open_engine";
using OpenEngine = Engine* (*)(const char* model_dir, const EngineOptions* options, char* error, size_t error_bytes);

}  // namespace drydock::runtime
