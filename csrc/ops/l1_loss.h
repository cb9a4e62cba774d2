// SPDX-License-Identifier: MIT
// l1_loss: what the torch side hands to a kernel. loss = sum |a - b| / numel. The pass that sums
// notes sign(a - b), an eighth to a quarter of a's bytes, and backward reads nothing else.
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace cyclegan_fast {

// Tensors are read flat, in memory order. acc: float, double for kFloat64.
struct L1LossFwdParams {
  Dtype dtype;
  int64_t numel;
  const void* a;    // [numel]
  const void* b;    // [numel]
  void* loss;       // acc [1]
  int8_t* sign;     // [numel] or NULL: sign(a - b), 0 at 0 and at NaN
  void* workspace;  // acc [loss_workspace(numel)]: sums of chunks
};

struct L1LossBwdParams {
  Dtype dtype;
  int64_t numel;
  const void* grad_loss;  // acc [1]
  const int8_t* sign;     // [numel]
  void* grad_a;           // [numel] or NULL: grad_loss * sign / numel
  void* grad_b;           // [numel] or NULL: its negative
};

}  // namespace cyclegan_fast
