// SPDX-License-Identifier: MIT
// The imaginary device: its properties, by the runtime and by the driver.
#include <cstdio>
#include <cstring>

#include "null_cuda.h"

#undef cudaGetDeviceProperties

namespace {

constexpr int kVersion = 13000;
auto* const kContext = reinterpret_cast<CUcontext>(0x77);

int attribute(cudaDeviceAttr name) {
  switch (name) {
    case cudaDevAttrComputeCapabilityMajor:
      return 9;
    case cudaDevAttrMultiProcessorCount:
      return null_cuda::kProcessors;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return null_cuda::kSharedPerBlock;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return 48 << 10;
    case cudaDevAttrWarpSize:
      return 32;
    case cudaDevAttrMaxThreadsPerBlock:
      return 1024;
    case cudaDevAttrMaxRegistersPerBlock:
      return 65536;
    default:
      return 0;
  }
}

}  // namespace

NULL_CUDA_API cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : null_cuda::fail(cudaErrorInvalidDevice, "cudaSetDevice");
}

NULL_CUDA_API cudaError_t cudaDriverGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  std::memset(p, 0, sizeof *p);
  std::strcpy(p->name, "null device");
  p->major = 9;
  p->totalGlobalMem = null_cuda::kTotalMemory;
  p->sharedMemPerBlock = 48 << 10;
  p->sharedMemPerBlockOptin = null_cuda::kSharedPerBlock;
  p->sharedMemPerMultiprocessor = 228 << 10;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->multiProcessorCount = null_cuda::kProcessors;
  p->l2CacheSize = 50 << 20;
  p->totalConstMem = 64 << 10;
  p->textureAlignment = 512;
  p->memoryBusWidth = 5120;
  p->asyncEngineCount = 2;
  p->unifiedAddressing = p->concurrentKernels = p->canMapHostMemory = 1;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int) {
  *value = attribute(name);
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int) {
  std::snprintf(text, length, "0000:00:00.0");
  return cudaSuccess;
}

NULL_CUDA_API const char* cudaGetErrorName(cudaError_t) { return "null CUDA"; }

NULL_CUDA_API const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnjoined:
      return "capture of a stream ended before all forked streams were joined";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    default:
      return "error of the null CUDA runtime";
  }
}

NULL_CUDA_API cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** entry, unsigned,
                                                           unsigned long long,
                                                           cudaDriverEntryPointQueryResult* found) {
  *entry = reinterpret_cast<void*>(+[]() -> int { return 0; });
  if (found) *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

NULL_CUDA_API CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
  if (flags) *flags = 0;
  *active = 1;
  return CUDA_SUCCESS;
}

NULL_CUDA_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  *context = kContext;
  return CUDA_SUCCESS;
}

NULL_CUDA_API CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = kContext;
  return CUDA_SUCCESS;
}

NULL_CUDA_API CUresult cuDeviceGet(CUdevice* device, int) {
  *device = 0;
  return CUDA_SUCCESS;
}

NULL_CUDA_API CUresult cuGetErrorString(CUresult, const char** text) {
  *text = "error of the null CUDA driver";
  return CUDA_SUCCESS;
}
