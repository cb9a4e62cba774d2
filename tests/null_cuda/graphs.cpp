// SPDX-License-Identifier: MIT
// Graphs: what a capture made, launched as one piece of work.
#include "null_cuda.h"

using null_cuda::Graph;

namespace {

std::vector<std::string> latest;  // the work of the graph that was launched last

}  // namespace

NULL_CUDA_API long null_cuda_graph_count() {
  std::lock_guard guard(null_cuda::lock());
  return static_cast<long>(latest.size());
}

NULL_CUDA_API const char* null_cuda_graph_work(long i) {
  std::lock_guard guard(null_cuda::lock());
  return latest[i].c_str();
}

NULL_CUDA_API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* instance,
                                                        cudaGraph_t graph, unsigned long long) {
  *instance = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph,
                                               unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(instance, graph, flags);
}

NULL_CUDA_API cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream) {
  std::lock_guard guard(null_cuda::lock());
  const auto* const graph = reinterpret_cast<Graph*>(instance);
  latest = graph->work;
  null_cuda::note("graph of " + std::to_string(graph->work.size()), stream);
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = reinterpret_cast<Graph*>(graph)->work.size();
  return cudaSuccess;
}
