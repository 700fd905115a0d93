#pragma once
// The words that all device code here is written in, so that one source compiles with nvcc for a GPU and, with
// -DDRYDOCK_SIMT_EMULATOR, with any C++20 compiler into threads emulated on the CPU (tests/simt/), which is how the
// kernels are tested where there is no GPU.
//
// How to write a kernel:
//   - Put it into `namespace drydock::kernels::cuda { namespace { ... } }` of a .cu file that includes this header.
//     CUDA's `__global__`, `__device__`, `__launch_bounds__`, `__forceinline__`, `__restrict__`, `threadIdx`,
//     `blockIdx`, `blockDim`, `gridDim` are as ever; blocks have one dimension, of a multiple of 32 threads.
//   - Start it with launch(kernel, {.grid_x = n, .threads = 256, .shared_bytes = b}, stream, arguments...).
//   - Shared memory: `DRYDOCK_DYNAMIC_SHARED(bytes);` declares `unsigned char* bytes`, aligned to 128; cut arrays out
//   of
//     it with reinterpret_cast. Plain `__shared__ T x[n];` works too, but the emulator neither poisons nor checks it,
//     and it does not work in kernels that run_together() runs at once.
//   - Numbers: Bf16 and Fp8 (e4m3) are storage; arithmetic is in float: to_float(x), to_bf16(f), to_fp8(f), and pairs
//     (simt_numbers.h).
//   - Synchronise with sync_block(), sync_warp(), named_barrier(id, threads). Every thread must reach sync_block: a
//     thread that has returned is an error in the emulator even though hardware forgives it.
//   - Warp operations (simt_warp.h) take the whole warp: all 32 lanes call shuffle, shuffle_xor, warp_sum, ballot, ...
//     or the emulator reports a deadlock.
//   - Asynchronous copies: copy_async_16(shared, global, valid), copy_async_commit(), copy_async_wait<n>(); the
//   emulator
//     delivers the bytes at the wait, so a missing wait shows.
//   - Tensor cores (simt_mma.h): load_matrix_x4, load_matrix_x4_transposed, mma_bf16, mma_fp8, whose fragments are
//   those
//     of the PTX ISA. What needs newer instructions (wgmma, TMA) goes into #if DRYDOCK_SM90A / DRYDOCK_SM100A, or into
//     a .cu of its own that the emulator build leaves out, with a path of these words beside it.
//   - Chains of kernels: launch with .programmatic = true and call dependency_wait() before reading what the previous
//     kernel wrote, dependency_launch() when the next may start its prologue. Both do nothing before sm_90.
//   - Conversions must be explicit (the emulator build has -Wconversion). std::min, std::max and other constexpr
//     functions of the standard library may be used in device code.
// Tests: link drydock_kernels_emulated and call the launchers with host pointers; tests/simt/simt_emulator.h has the
// order of threads (forward, reverse, random), which every test should vary, and run_together().

#ifdef DRYDOCK_SIMT_EMULATOR
#include "tests/simt/simt_emulator.h"
#else
#include "kernels/cuda/simt_cuda.h"
#endif

#include "kernels/cuda/simt_mma.h"
#include "kernels/cuda/simt_numbers.h"
#include "kernels/cuda/simt_warp.h"
#include "kernels/cuda/stream.h"
