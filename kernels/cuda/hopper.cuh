#pragma once
// Instructions that only sm_90a has, as attention and grouped products use them: barriers in shared memory that count
// bytes, tensor copies (TMA) and products of a warpgroup (wgmma). PTX ISA 8.0, sections 9.7.12.15 (mbarrier), 9.7.8.24
// (cp.async.bulk) and 9.7.14 (wgmma). To be included where DRYDOCK_SM90A is 1.
#include <cstdint>

#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda::hopper {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// A barrier at a shared address [8 bytes]. Its phase ends with `count` arrivals and the bytes that were announced.
__device__ __forceinline__ void barrier_init(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_arrive_expecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Until the phase of this parity has ended; that before the first counts as ended and has parity 1.
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// Counts at a named barrier without waiting at it.
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Ordinary writes to shared memory before it are seen by wgmma and TMA after it.
__device__ __forceinline__ void fence_for_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A box of a tensor of three extents into shared memory, counted at `barrier`; coordinates are of its first element.
__device__ __forceinline__ void copy_box(uint32_t to, const void* map, uint32_t barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}

// Of two extents.
__device__ __forceinline__ void copy_box(uint32_t to, const void* map, uint32_t barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(to),
      "l"(map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Matrices of 16-bit elements in shared memory, in rows of 128 bytes with the 128-byte swizzle, eight rows 1024 bytes.
//   rows of k: `leading` is not used; k + 16 is 32 bytes further.
//   rows of n ("transposed"): columns 64 ... 127 of n begin `leading` bytes after the first 64; k + 16 is 2048 further.
__device__ __forceinline__ uint64_t descriptor(uint32_t address, uint32_t leading) {
  constexpr uint64_t kEightRows = 1024 >> 4, kSwizzle128 = 1;
  return static_cast<uint64_t>((address & 0x3ffffU) >> 4U) | static_cast<uint64_t>(leading >> 4U) << 16U |
         kEightRows << 32U | kSwizzle128 << 62U;
}

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of the sums across the products that are under way.
template <int kTiles>
__device__ __forceinline__ void hold(float (&sums)[kTiles][4]) {
#pragma unroll
  for (int i = 0; i < kTiles * 4; ++i) asm volatile("" : "+f"(sums[i / 4][i % 4])::"memory");
}

// The sums of one n-tile of 8 columns are laid out over a warp as in mma.m16n8k16; warp w of the four has rows 16 w ...
#define DRYDOCK_SUMS_1(d, t) "+f"(d[t][0]), "+f"(d[t][1]), "+f"(d[t][2]), "+f"(d[t][3])
#define DRYDOCK_SUMS_4(d, t) \
  DRYDOCK_SUMS_1(d, t), DRYDOCK_SUMS_1(d, t + 1), DRYDOCK_SUMS_1(d, t + 2), DRYDOCK_SUMS_1(d, t + 3)
#define DRYDOCK_SUMS_8(d, t) DRYDOCK_SUMS_4(d, t), DRYDOCK_SUMS_4(d, t + 4)
#define DRYDOCK_SUMS_16(d, t) DRYDOCK_SUMS_8(d, t), DRYDOCK_SUMS_8(d, t + 8)
#define DRYDOCK_SUMS_32(d, t) DRYDOCK_SUMS_16(d, t), DRYDOCK_SUMS_16(d, t + 16)
#define DRYDOCK_NAMES_32                                                                                           \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define DRYDOCK_NAMES_64                                                                                             \
  DRYDOCK_NAMES_32                                                                                                   \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
  "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DRYDOCK_NAMES_128                                                                                            \
  DRYDOCK_NAMES_64                                                                                                   \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, " \
  "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, " \
  "%107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "     \
  "%125, %126, %127"

// sums (64, 8 kTiles) = or += a (64, 16) b (16, 8 kTiles); a and b in shared memory, both in rows of k.
#define DRYDOCK_SHARED_PRODUCT(columns, tiles, names, sums_list, a_name, b_name, add_name)                      \
  __device__ __forceinline__ void multiply_shared(float(&sums)[tiles][4], uint64_t a, uint64_t b, bool add) {   \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_name ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns \
                 "k16.f32.bf16.bf16 {" names "}, " a_name ", " b_name ", p, 1, 1, 0, 0;\n}\n"                   \
                 : sums_list                                                                                    \
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                                 \
  }
DRYDOCK_SHARED_PRODUCT("64", 8, DRYDOCK_NAMES_32, DRYDOCK_SUMS_8(sums, 0), "%32", "%33", "%34")
DRYDOCK_SHARED_PRODUCT("128", 16, DRYDOCK_NAMES_64, DRYDOCK_SUMS_16(sums, 0), "%64", "%65", "%66")
DRYDOCK_SHARED_PRODUCT("256", 32, DRYDOCK_NAMES_128, DRYDOCK_SUMS_32(sums, 0), "%128", "%129", "%130")

// sums (64, 8 kTiles) = or += a (64, 32) b (32, 8 kTiles) in e4m3; as multiply_shared else.
#define DRYDOCK_FP8_PRODUCT(columns, tiles, names, sums_list, a_name, b_name, add_name)                           \
  __device__ __forceinline__ void multiply_shared_fp8(float(&sums)[tiles][4], uint64_t a, uint64_t b, bool add) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_name ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns   \
                 "k32.f32.e4m3.e4m3 {" names "}, " a_name ", " b_name ", p, 1, 1;\n}\n"                           \
                 : sums_list                                                                                      \
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                                   \
  }
DRYDOCK_FP8_PRODUCT("128", 16, DRYDOCK_NAMES_64, DRYDOCK_SUMS_16(sums, 0), "%64", "%65", "%66")
DRYDOCK_FP8_PRODUCT("256", 32, DRYDOCK_NAMES_128, DRYDOCK_SUMS_32(sums, 0), "%128", "%129", "%130")

// As before with a in registers, an A fragment a warp, and b in rows of n.
#define DRYDOCK_REGISTER_PRODUCT(columns, tiles, names, sums_list, a_names, b_name)                                  \
  __device__ __forceinline__ void multiply_registers(float(&sums)[tiles][4], const uint32_t(&a)[4], uint64_t b) {    \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" columns "k16.f32.bf16.bf16 {" names "}, {" a_names "}, " b_name \
                 ", 1, 1, 1, 1;\n"                                                                                   \
                 : sums_list                                                                                         \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                              \
  }
DRYDOCK_REGISTER_PRODUCT("64", 8, DRYDOCK_NAMES_32, DRYDOCK_SUMS_8(sums, 0), "%32, %33, %34, %35", "%36")
DRYDOCK_REGISTER_PRODUCT("128", 16, DRYDOCK_NAMES_64, DRYDOCK_SUMS_16(sums, 0), "%64, %65, %66, %67", "%68")
DRYDOCK_REGISTER_PRODUCT("256", 32, DRYDOCK_NAMES_128, DRYDOCK_SUMS_32(sums, 0), "%128, %129, %130, %131", "%132")

#undef DRYDOCK_SHARED_PRODUCT
#undef DRYDOCK_FP8_PRODUCT
#undef DRYDOCK_REGISTER_PRODUCT
#undef DRYDOCK_NAMES_128
#undef DRYDOCK_NAMES_64
#undef DRYDOCK_NAMES_32
#undef DRYDOCK_SUMS_32
#undef DRYDOCK_SUMS_16
#undef DRYDOCK_SUMS_8
#undef DRYDOCK_SUMS_4
#undef DRYDOCK_SUMS_1

}  // namespace drydock::kernels::cuda::hopper
