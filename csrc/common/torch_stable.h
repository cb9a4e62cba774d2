// SPDX-License-Identifier: MIT
// The only file that spells torch::stable and aoti_*: what the ops need of PyTorch's stable ABI.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace cyclegan_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;
using OptionalTensors = std::vector<OptionalTensor>;

// Runs body(begin, end) over [0, tasks) on PyTorch's threads; `elements` per task say when a thread
// is worth waking. How tasks are shared out depends on the number of threads, so a task's result
// must not depend on its neighbours.
template <class Body>
void parallel_for(int64_t tasks, int64_t elements, const Body& body) {
  constexpr int64_t kWorthAThread = 32768;  // elements, as in PyTorch's own operators
  const int64_t grain = kWorthAThread / (elements > 0 ? elements : 1);
  if (tasks > 0) torch::stable::parallel_for(0, tasks, grain > 1 ? grain : 1, body);
}

inline const void* data(const Tensor& x) { return x.const_data_ptr(); }
inline const void* data(const OptionalTensor& x) { return x ? x->const_data_ptr() : nullptr; }
inline void* mutable_data(const Tensor& x) { return x.mutable_data_ptr(); }
inline void* mutable_data(const OptionalTensor& x) { return x ? x->mutable_data_ptr() : nullptr; }

#ifdef USE_CUDA
// Makes x's device the current one until the end of the scope.
class CudaDeviceGuard {
 public:
  explicit CudaDeviceGuard(const Tensor& x) : guard_(x.get_device_index()) {}

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

// The stream on which PyTorch works now on x's device, a cudaStream_t.
inline void* current_cuda_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return stream;
}
#endif

}  // namespace cyclegan_fast
