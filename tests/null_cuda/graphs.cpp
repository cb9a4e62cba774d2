// SPDX-License-Identifier: MIT
// Graphs: what a capture made, launched as one piece of work.
#include "null_cuda.h"

using null_cuda::Graph;

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
  const auto* const graph = reinterpret_cast<Graph*>(instance);
  null_cuda::note("graph of " + std::to_string(graph->work.size()), stream);
  return cudaSuccess;
}

NULL_CUDA_API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = reinterpret_cast<Graph*>(graph)->work.size();
  return cudaSuccess;
}
