// SPDX-License-Identifier: MIT
// The one door through which every kernel is started, and the one place where the kernels' source
// meets its runtime: CUDA's, or a host layer that executes blocks and threads on the CPU. That
// layer is included ahead of this file, defines CYCLEGAN_FAST_EMULATOR, and brings its own
// cudaStream_t, cudaError_t, launch(), CYCLEGAN_FAST_SHARED() and the rest of what is here.
#pragma once

#ifndef CYCLEGAN_FAST_EMULATOR

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <tuple>

// Dynamic shared memory, 16-byte aligned, as `T* name`.
#define CYCLEGAN_FAST_SHARED(T, name)                         \
  extern __shared__ __align__(16) unsigned char name##_raw[]; \
  T* name = reinterpret_cast<T*>(name##_raw)

namespace cyclegan_fast {

// Queues kernel(args...) on a stream. Neither allocates nor synchronises: safe in a graph capture.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, const Arguments&... arguments) {
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  return std::apply(
      [&](auto&... value) {
        void* pointers[] = {static_cast<void*>(&value)...};
        return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers,
                                shared_bytes, stream);
      },
      values);
}

// Lets a kernel have more dynamic shared memory than the 48 KB that every block may.
template <typename... Parameters>
cudaError_t allow_shared(void (*kernel)(Parameters...), int bytes) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                              cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

// Of the current device.
inline cudaError_t multiprocessors(int* count) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace cyclegan_fast

#endif  // CYCLEGAN_FAST_EMULATOR
