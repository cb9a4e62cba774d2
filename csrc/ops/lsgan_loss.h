// SPDX-License-Identifier: MIT
// lsgan_loss: what the torch side hands to a kernel. loss = sum (pred - target)^2 / numel.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace cyclegan_fast {

// Tensors are read flat, in memory order. acc: float, double for kFloat64.
struct LsganLossFwdParams {
  Dtype dtype;
  int64_t numel;
  double target_value;  // where there is no target tensor
  const void* pred;     // [numel]
  const void* target;   // [numel] or NULL
  void* loss;           // acc [1]
  void* workspace;      // acc [loss_workspace(numel)]: sums of chunks
};

struct LsganLossBwdParams {
  Dtype dtype;
  int64_t numel;
  double target_value;
  const void* grad_loss;  // acc [1]
  const void* pred;       // [numel]
  const void* target;     // [numel] or NULL
  void* grad_pred;        // [numel] or NULL: 2 grad_loss (pred - target) / numel
  void* grad_target;      // [numel] or NULL: its negative
};

}  // namespace cyclegan_fast
