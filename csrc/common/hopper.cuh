// SPDX-License-Identifier: MIT
// Hopper's own instructions (sm_90a), a function each: barriers in shared memory, the tensor memory
// accelerator, products of a warpgroup. The one file of inline PTX; PTX ISA 8.0, sections 9.7.13
// and 9.7.15. Where kernels are executed on the CPU, hopper_emulator.h brings the same functions.
#pragma once

#include <cuda.h>  // types alone: the driver is found when it is wanted

#include <cstdint>

#ifdef CYCLEGAN_FAST_EMULATOR
#include "hopper_emulator.h"
#else

#include "common/hopper_products.cuh"
#include "common/launch.cuh"
#include "common/vector.cuh"

namespace cyclegan_fast {

// As instructions want it: shared memory has 32-bit addresses of its own.
__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// A barrier's phase ends with so many arrivals and all bytes that were announced. One thread.
__device__ inline void make_barrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals));
}

// Lets the accelerator see the barriers that this thread has made; __syncthreads() comes next.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

// Arrives, and announces bytes that the accelerator will bring.
__device__ inline void arrive_and_expect(uint64_t* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

// Waits for the end of the phase with this parity; the first one has 0.
__device__ inline void wait(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Has the accelerator fetch the map's box that begins at these coordinates; zeros lie beyond the
// tensor. `barrier` gets its bytes.
__device__ inline void copy_box(void* to, const CUtensorMap* map, int c0, int c1, int c2,
                                uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(to)),
      "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(shared_address(barrier))
      : "memory");
}

// Copies 16 bytes, or writes zeros where they are not `there`; done by wait_for_copies().
__device__ inline void copy_16_bytes(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
               : "memory");
}
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Writes 16 bytes that a product will read.
template <typename T>
__device__ inline void store_16_bytes(const Vector<T, kWidest<T> >& from, T* to) {
  store_vector(from, to);
}

// Lets products see what this thread has written to shared memory by the two functions above; then
// it arrives where the products wait.
__device__ inline void publish_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Registers of each thread of a warpgroup; all of its warps ask for the same.
template <int kRegisters>
__device__ inline void give_up_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// A barrier for some of the block's threads: `kThreads` of them, by a number from 1 to 15.
template <int kNumber, int kThreads>
__device__ inline void wait_for_threads() {
  asm volatile("bar.sync %0, %1;" ::"n"(kNumber), "n"(kThreads) : "memory");
}

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// The driver's function that describes a tensor to the accelerator, or NULL: by way of the runtime,
// so that nothing is linked with a driver.
inline EncodeTiled encode_tiled() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             12000, cudaEnableDefault, &result);
#else
  const cudaError_t error =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<EncodeTiled>(found);
}

}  // namespace cyclegan_fast

#endif  // CYCLEGAN_FAST_EMULATOR

namespace cyclegan_fast {

enum class Swizzle : uint64_t { kNone = 0, k128Bytes = 1 };

// Where a product finds an operand in shared memory (PTX ISA, "Matrix Descriptor Format"): offsets
// in bytes, multiples of 16.
__device__ inline uint64_t matrix_descriptor(uint32_t address, uint32_t leading, uint32_t stride,
                                             Swizzle swizzle) {
  const auto encoded = [](uint32_t bytes) { return uint64_t{(bytes & 0x3ffff) >> 4}; };
  return encoded(address) | encoded(leading) << 16 | encoded(stride) << 32 |
         static_cast<uint64_t>(swizzle) << 62;
}

// A descriptor of the same form, `bytes` further on.
__device__ inline uint64_t advanced(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

}  // namespace cyclegan_fast
