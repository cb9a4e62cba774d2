// SPDX-License-Identifier: MIT
// A CUDA runtime and driver without a GPU: one imaginary device of compute capability 9.0.
//
// Device memory is addresses without memory: whatever the host copies from it is zero, so that
// equal computations compare equal. Kernels, copies, memsets and library calls are noted by name
// and do nothing. What a stream capture forbids is refused, as CUDA refuses it. What no file here
// defines is generated: it returns success.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

#define NULL_CUDA_API extern "C" __attribute__((visibility("default")))

namespace null_cuda {

inline constexpr size_t kTotalMemory = size_t{80} << 30;
inline constexpr int kProcessors = 132;
inline constexpr int kSharedPerBlock = 232448;

enum class Kind { kUnknown, kPinned, kDevice };

// Guards everything below; held while a function of the API works.
std::recursive_mutex& lock();

// What memory an address lies in.
Kind kind_of(const void* address);

// Notes a piece of work on a stream: in the log, or in the graph that is being captured.
void note(const std::string& work, cudaStream_t stream);

// Whether the stream is being captured, so that work is not to be done now.
bool is_capturing(cudaStream_t stream);

// Whether any stream is being captured: device memory allocated meanwhile belongs to the graph.
bool is_any_capturing();

// What a graph holds: its work by name.
struct Graph {
  std::vector<std::string> work;
};

// Sets the error that cudaGetLastError returns.
cudaError_t fail(cudaError_t error, const char* what);

// Refuses what a capture forbids, and spoils the capture.
cudaError_t forbid(const char* what);

// Refuses a call that synchronises or allocates while this thread captures, or anyone globally.
cudaError_t refuse_in_capture(const char* what);

// Counters that tests read.
void count_synchronisation();
void count_copy_to_host();

}  // namespace null_cuda
