// SPDX-License-Identifier: MIT
// Memory of the imaginary device, and pinned memory of the host; copies and memsets.
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>

#include "null_cuda.h"

namespace null_cuda {
namespace {

struct Block {
  size_t bytes;
  Kind kind;
  bool of_graph;  // allocated while a graph was captured
};

// Never destroyed: PyTorch frees memory while the process ends.
std::map<uintptr_t, Block>& blocks() {
  static auto& all = *new std::map<uintptr_t, Block>;
  return all;
}

// Device memory can be neither read nor written, so it costs nothing however large, and a host that
// follows a pointer into it dies of it.
cudaError_t allocate(void** address, size_t bytes, Kind kind) {
  bytes = bytes ? bytes : 1;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const int access = kind == Kind::kDevice ? PROT_NONE : PROT_READ | PROT_WRITE;
  *address = mmap(nullptr, bytes, access, flags, -1, 0);
  if (*address == MAP_FAILED) return fail(cudaErrorMemoryAllocation, "allocation");
  std::lock_guard guard(lock());
  blocks()[reinterpret_cast<uintptr_t>(*address)] = {bytes, kind, is_any_capturing()};
  return cudaSuccess;
}

cudaError_t release(void* address) {
  if (!address) return cudaSuccess;
  std::lock_guard guard(lock());
  const auto found = blocks().find(reinterpret_cast<uintptr_t>(address));
  if (found == blocks().end()) return fail(cudaErrorInvalidValue, "release");
  munmap(address, found->second.bytes);
  blocks().erase(found);
  return cudaSuccess;
}

// The block that an address lies in, or null.
const Block* block_of(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto next = blocks().upper_bound(at);
  if (next == blocks().begin()) return nullptr;
  const auto& [start, block] = *std::prev(next);
  return at < start + block.bytes ? &block : nullptr;
}

// A graph's memory is the graph's: what lies there at a replay may be overwritten by it before it
// is read, because a block is used more than once in a graph.
cudaError_t refuse_outside_of_graph(const void* target, cudaStream_t stream) {
  std::lock_guard guard(lock());
  const Block* const block = block_of(target);
  if (!block || !block->of_graph || block->kind != Kind::kDevice || is_capturing(stream))
    return cudaSuccess;
  return fail(cudaErrorIllegalAddress, "a write from outside of a graph into the graph's memory");
}

const char* name_of(Kind kind) {
  return kind == Kind::kDevice ? "device" : kind == Kind::kPinned ? "pinned" : "pageable";
}

cudaError_t copy(void* target, const void* source, size_t bytes, cudaStream_t stream) {
  const Kind to = kind_of(target), from = kind_of(source);
  if (is_capturing(stream) && (to == Kind::kUnknown || from == Kind::kUnknown))
    return forbid("copy of pageable memory");
  if (const auto error = refuse_outside_of_graph(target, stream)) return error;
  if (to != Kind::kDevice && from == Kind::kDevice) count_copy_to_host();
  note(std::string("copy ") + name_of(from) + " to " + name_of(to), stream);
  if (is_capturing(stream) || to == Kind::kDevice) return cudaSuccess;
  if (from == Kind::kDevice)
    std::memset(target, 0, bytes);
  else
    std::memmove(target, source, bytes);
  return cudaSuccess;
}

}  // namespace

Kind kind_of(const void* address) {
  std::lock_guard guard(lock());
  const Block* const block = block_of(address);
  return block ? block->kind : Kind::kUnknown;
}

}  // namespace null_cuda

using null_cuda::Kind;

NULL_CUDA_API cudaError_t cudaMalloc(void** address, size_t bytes) {
  if (const auto error = null_cuda::refuse_in_capture("cudaMalloc")) return error;
  return null_cuda::allocate(address, bytes, Kind::kDevice);
}

NULL_CUDA_API cudaError_t cudaMallocAsync(void** address, size_t bytes, cudaStream_t) {
  return null_cuda::allocate(address, bytes, Kind::kDevice);
}

NULL_CUDA_API cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  if (const auto error = null_cuda::refuse_in_capture("cudaHostAlloc")) return error;
  return null_cuda::allocate(address, bytes, Kind::kPinned);
}

NULL_CUDA_API cudaError_t cudaFree(void* address) {
  // cudaFree(nullptr) is how programs wake the runtime up; a real one waits for the device.
  if (!address) return cudaSuccess;
  if (const auto error = null_cuda::refuse_in_capture("cudaFree")) return error;
  return null_cuda::release(address);
}

NULL_CUDA_API cudaError_t cudaFreeAsync(void* address, cudaStream_t) {
  return null_cuda::release(address);
}

NULL_CUDA_API cudaError_t cudaFreeHost(void* address) { return null_cuda::release(address); }

NULL_CUDA_API cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = null_cuda::kTotalMemory - (size_t{10} << 30);
  *total = null_cuda::kTotalMemory;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                                   const void* address) {
  const Kind kind = null_cuda::kind_of(address);
  auto* const pointer = const_cast<void*>(address);
  std::memset(attributes, 0, sizeof *attributes);
  attributes->type = kind == Kind::kDevice   ? cudaMemoryTypeDevice
                     : kind == Kind::kPinned ? cudaMemoryTypeHost
                                             : cudaMemoryTypeUnregistered;
  attributes->device = kind == Kind::kUnknown ? -2 : 0;
  attributes->devicePointer = kind == Kind::kUnknown ? nullptr : pointer;
  attributes->hostPointer = kind == Kind::kPinned ? pointer : nullptr;
  return cudaSuccess;
}

NULL_CUDA_API CUresult cuPointerGetAttribute(void* value, CUpointer_attribute name, CUdeviceptr) {
  if (name == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) *static_cast<int*>(value) = 0;
  return CUDA_SUCCESS;
}

NULL_CUDA_API cudaError_t cudaMemcpy(void* target, const void* source, size_t bytes,
                                     cudaMemcpyKind) {
  null_cuda::count_synchronisation();
  if (const auto error = null_cuda::refuse_in_capture("cudaMemcpy")) return error;
  return null_cuda::copy(target, source, bytes, nullptr);
}

NULL_CUDA_API cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes,
                                          cudaMemcpyKind, cudaStream_t stream) {
  return null_cuda::copy(target, source, bytes, stream);
}

NULL_CUDA_API cudaError_t cudaMemsetAsync(void* target, int, size_t, cudaStream_t stream) {
  if (null_cuda::kind_of(target) != Kind::kDevice)
    return null_cuda::fail(cudaErrorInvalidValue, "cudaMemsetAsync");
  if (const auto error = null_cuda::refuse_outside_of_graph(target, stream)) return error;
  null_cuda::note("memset", stream);
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaMemset(void* target, int value, size_t bytes) {
  if (const auto error = null_cuda::refuse_in_capture("cudaMemset")) return error;
  return cudaMemsetAsync(target, value, bytes, nullptr);
}
