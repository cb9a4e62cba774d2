// SPDX-License-Identifier: MIT
// Kernels: registered by name, noted when launched, refused where no GPU could launch them.
#include <cstring>
#include <map>
#include <vector>

#include "null_cuda.h"

namespace {

struct Configuration {
  dim3 grid, block;
  size_t shared;
  void* stream;
};

thread_local std::vector<Configuration> pushed;

std::map<const void*, std::string>& names() {
  static auto& all = *new std::map<const void*, std::string>;
  return all;
}

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  std::lock_guard guard(null_cuda::lock());
  const auto found = names().find(kernel);
  const std::string name = found == names().end() ? "unknown kernel" : found->second;
  const auto threads = static_cast<unsigned long long>(block.x) * block.y * block.z;
  const bool fits = grid.x > 0 && grid.x <= 2147483647 && grid.y > 0 && grid.y <= 65535 &&
                    grid.z > 0 && grid.z <= 65535 && threads > 0 && threads <= 1024 &&
                    block.z <= 64 && shared <= null_cuda::kSharedPerBlock;
  if (!fits) return null_cuda::fail(cudaErrorInvalidConfiguration, name.c_str());
  null_cuda::note(name, stream);
  return cudaSuccess;
}

}  // namespace

NULL_CUDA_API void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}

NULL_CUDA_API void __cudaRegisterFatBinaryEnd(void**) {}
NULL_CUDA_API void __cudaUnregisterFatBinary(void**) {}
NULL_CUDA_API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

NULL_CUDA_API void __cudaRegisterFunction(void**, const char* kernel, char*, const char* name, int,
                                          uint3*, uint3*, dim3*, dim3*, int*) {
  std::lock_guard guard(null_cuda::lock());
  names()[kernel] = name;
}

NULL_CUDA_API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                                   struct CUstream_st* stream) {
  pushed.push_back({grid, block, shared, stream});
  return 0;
}

NULL_CUDA_API cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared,
                                                     void* stream) {
  const auto configuration = pushed.back();
  pushed.pop_back();
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  *static_cast<void**>(stream) = configuration.stream;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**,
                                           size_t shared, cudaStream_t stream) {
  return launch(kernel, grid, block, shared, stream);
}

NULL_CUDA_API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* kernel,
                                              void**) {
  return launch(kernel, c->gridDim, c->blockDim, c->dynamicSmemBytes, c->stream);
}

NULL_CUDA_API cudaError_t __cudaGetKernel(cudaKernel_t* handle, const void* kernel) {
  *handle = reinterpret_cast<cudaKernel_t>(const_cast<void*>(kernel));
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**,
                                             size_t shared, cudaStream_t stream) {
  return launch(reinterpret_cast<const void*>(kernel), grid, block, shared, stream);
}

NULL_CUDA_API CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned,
                                      unsigned, unsigned, CUstream stream, void**, void**) {
  null_cuda::note("kernel of the driver", stream);
  return CUDA_SUCCESS;
}

NULL_CUDA_API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  std::memset(attributes, 0, sizeof *attributes);
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  attributes->binaryVersion = attributes->ptxVersion = 90;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                                 const void*,
                                                                                 int threads,
                                                                                 size_t, unsigned) {
  *blocks = 2048 / (threads ? threads : 1);
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*,
                                                                        int threads, size_t) {
  *blocks = 2048 / (threads ? threads : 1);
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaGetSymbolAddress(void** address, const void*) {
  static char zeros[1 << 16];
  *address = zeros;
  return cudaSuccess;
}

NULL_CUDA_API int cublasCreate_v2(void** handle) {
  *handle = reinterpret_cast<void*>(0x99);
  return 0;
}

NULL_CUDA_API int cublasGetMathMode(void*, int* mode) { return *mode = 0; }
NULL_CUDA_API int cublasGetPointerMode_v2(void*, int* mode) { return *mode = 0; }
NULL_CUDA_API size_t cublasLtGetVersion() { return 130100; }
