#pragma once
// Calls of cuBLAS and of the CUDA runtime from host code: failures become core::Error, and what they make is owned.
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <type_traits>

#include "core/error.h"

namespace drydock::kernels::cuda {

// `what` is what was tried.
inline void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw core::Error(std::string("cuBLAS: ") + what + ": " + cublasLtGetStatusString(status));
}
inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw core::Error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

template <typename T, auto destroy>
struct Destroyer {
  void operator()(T object) const { destroy(object); }
};
// A handle, which is a pointer to an opaque type.
template <typename Opaque, auto destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Opaque>, Destroyer<Opaque, destroy>>;

}  // namespace drydock::kernels::cuda
