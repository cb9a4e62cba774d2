// SPDX-License-Identifier: MIT
// Streams, events and captures; the log of all work, and what a capture forbids.
//
// Streams have no order of their own: work is noted in the order in which it is launched. A capture
// spreads to the streams that wait for its events, and must get all of them back before it ends.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <utility>
#include <vector>

#include "null_cuda.h"

namespace null_cuda {
namespace {

struct Capture {
  unsigned long long id;
  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  const void* thread;
  Graph* graph;
  bool invalid;                           // something forbidden was tried
  std::map<cudaStream_t, size_t> last;    // stream -> number of its last piece of work, from 1
  std::map<cudaStream_t, size_t> joined;  // stream -> the last one that somebody waited for
};

struct Recorded {
  unsigned long long capture;  // 0: none
  cudaStream_t stream;
  size_t work;
};

// Never destroyed, as memory.cpp's: the process ends in an order of its own.
struct State {
  std::recursive_mutex mutex;
  std::vector<std::string> log;
  std::map<cudaEvent_t, Recorded> events;
  Capture* capture = nullptr;
  unsigned long long captures = 0;
  uintptr_t handle = 0x1000;
  long synchronisations = 0, copies_to_host = 0;
};

State& state() {
  static auto& only = *new State;
  return only;
}

thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
thread_local char this_thread;

template <class Handle>
Handle fresh() {
  std::lock_guard guard(lock());
  return reinterpret_cast<Handle>(state().handle += 16);
}

Capture* capture_of(cudaStream_t stream) {
  Capture* const capture = state().capture;
  return capture && capture->last.count(stream) ? capture : nullptr;
}

}  // namespace

std::recursive_mutex& lock() { return state().mutex; }

void note(const std::string& work, cudaStream_t stream) {
  std::lock_guard guard(lock());
  if (Capture* const capture = capture_of(stream)) {
    capture->graph->work.push_back(work);
    capture->last[stream] = capture->graph->work.size();
  } else {
    state().log.push_back(work);
  }
}

bool is_any_capturing() {
  std::lock_guard guard(lock());
  return state().capture != nullptr;
}

bool is_capturing(cudaStream_t stream) {
  std::lock_guard guard(lock());
  return capture_of(stream) != nullptr;
}

cudaError_t fail(cudaError_t error, const char* what) {
  std::fprintf(stderr, "null CUDA: %s: error %d\n", what, static_cast<int>(error));
  return last_error = error;
}

cudaError_t forbid(const char* what) {
  state().capture->invalid = true;
  return fail(cudaErrorStreamCaptureUnsupported, what);
}

cudaError_t refuse_in_capture(const char* what) {
  std::lock_guard guard(lock());
  const Capture* const capture = state().capture;
  if (!capture || thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  const bool mine = capture->thread == &this_thread;
  const bool forbidden = capture->mode == cudaStreamCaptureModeGlobal
                             ? mine || thread_mode == cudaStreamCaptureModeGlobal
                             : mine && capture->mode == cudaStreamCaptureModeThreadLocal;
  return forbidden ? forbid(what) : cudaSuccess;
}

void count_synchronisation() {
  std::lock_guard guard(lock());
  ++state().synchronisations;
}

void count_copy_to_host() {
  std::lock_guard guard(lock());
  ++state().copies_to_host;
}

}  // namespace null_cuda

using null_cuda::capture_of;
using null_cuda::fail;
using null_cuda::state;

NULL_CUDA_API long null_cuda_count() {
  std::lock_guard guard(null_cuda::lock());
  return static_cast<long>(state().log.size());
}

NULL_CUDA_API const char* null_cuda_work(long i) {
  std::lock_guard guard(null_cuda::lock());
  return state().log[i].c_str();
}

NULL_CUDA_API long null_cuda_synchronisations() { return state().synchronisations; }
NULL_CUDA_API long null_cuda_copies_to_host() { return state().copies_to_host; }
NULL_CUDA_API void null_cuda_note(const char* work, void* stream) {
  null_cuda::note(work, static_cast<cudaStream_t>(stream));
}

NULL_CUDA_API void null_cuda_clear() {
  std::lock_guard guard(null_cuda::lock());
  state().log.clear();
  state().synchronisations = state().copies_to_host = 0;
}

NULL_CUDA_API cudaError_t cudaGetLastError() {
  const auto error = null_cuda::last_error;
  null_cuda::last_error = cudaSuccess;
  return error;
}

NULL_CUDA_API cudaError_t cudaPeekAtLastError() { return null_cuda::last_error; }

NULL_CUDA_API cudaError_t cudaDeviceSynchronize() {
  null_cuda::count_synchronisation();
  return null_cuda::refuse_in_capture("cudaDeviceSynchronize");
}

NULL_CUDA_API cudaError_t cudaStreamSynchronize(cudaStream_t) {
  null_cuda::count_synchronisation();
  return null_cuda::refuse_in_capture("cudaStreamSynchronize");
}

NULL_CUDA_API cudaError_t cudaEventSynchronize(cudaEvent_t) {
  null_cuda::count_synchronisation();
  return null_cuda::refuse_in_capture("cudaEventSynchronize");
}

NULL_CUDA_API cudaError_t cudaStreamQuery(cudaStream_t) {
  return null_cuda::refuse_in_capture("cudaStreamQuery");
}

NULL_CUDA_API cudaError_t cudaEventQuery(cudaEvent_t) {
  return null_cuda::refuse_in_capture("cudaEventQuery");
}

NULL_CUDA_API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = null_cuda::fresh<cudaStream_t>();
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = null_cuda::fresh<cudaStream_t>();
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
  *priority = 0;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = null_cuda::fresh<cudaEvent_t>();
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}

NULL_CUDA_API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  std::lock_guard guard(null_cuda::lock());
  const auto* const capture = capture_of(stream);
  state().events[event] = capture
                              ? null_cuda::Recorded{capture->id, stream, capture->last.at(stream)}
                              : null_cuda::Recorded{0, stream, 0};
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream,
                                                   unsigned) {
  return cudaEventRecord(event, stream);
}

NULL_CUDA_API cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::lock_guard guard(null_cuda::lock());
  auto* const capture = state().capture;
  const auto found = state().events.find(event);
  const bool captured =
      capture && found != state().events.end() && found->second.capture == capture->id;
  if (!captured) {
    return capture_of(stream) && found != state().events.end()
               ? fail(cudaErrorStreamCaptureIsolation, "a capture waits for what is outside of it")
               : cudaSuccess;
  }
  capture->last.try_emplace(stream, 0);  // the capture spreads to it
  auto& joined = capture->joined[found->second.stream];
  joined = std::max(joined, found->second.work);
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.0f;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, null_cuda::thread_mode);
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaStreamIsCapturing(cudaStream_t stream,
                                                cudaStreamCaptureStatus* status) {
  *status =
      null_cuda::is_capturing(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream,
                                                   cudaStreamCaptureStatus* status,
                                                   unsigned long long* id, cudaGraph_t* graph,
                                                   const cudaGraphNode_t** nodes,
                                                   const cudaGraphEdgeData** edges, size_t* count) {
  std::lock_guard guard(null_cuda::lock());
  const auto* const capture = capture_of(stream);
  cudaStreamIsCapturing(stream, status);
  if (id) *id = capture ? capture->id : 0;
  if (graph) *graph = capture ? reinterpret_cast<cudaGraph_t>(capture->graph) : nullptr;
  if (nodes) *nodes = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  std::lock_guard guard(null_cuda::lock());
  if (state().capture || !stream)
    return fail(cudaErrorStreamCaptureUnsupported, "cudaStreamBeginCapture");
  auto* const graph = new null_cuda::Graph;
  state().capture = new null_cuda::Capture{
      ++state().captures, stream, mode, &null_cuda::this_thread, graph, false, {{stream, 0}}, {}};
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  std::lock_guard guard(null_cuda::lock());
  auto* const capture = state().capture;
  if (!capture || capture->origin != stream)
    return fail(cudaErrorStreamCaptureUnmatched, "cudaStreamEndCapture");
  state().capture = nullptr;
  if (capture->invalid) return fail(cudaErrorStreamCaptureInvalidated, "cudaStreamEndCapture");
  *graph = reinterpret_cast<cudaGraph_t>(capture->graph);
  for (const auto& [other, work] : capture->last)
    if (other != stream && capture->joined[other] < work)
      return fail(cudaErrorStreamCaptureUnjoined, "cudaStreamEndCapture");
  delete capture;
  return cudaSuccess;
}
