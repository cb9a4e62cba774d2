// SPDX-License-Identifier: MIT
// generator_loss: all scalar terms of a step of the generators, what the torch side hands on.
//
//   total = scale (G_A + G_B + cycle_A + cycle_B + idt_A + idt_B)
//   G = mean (pred - 1)^2,   cycle and idt = weight mean |made - target|
//
// where made = tanh(z) of what is handed on, if `tanh`. The gradients, scale included, are written
// by the pass that sums.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "ops/loss.h"

namespace cyclegan_fast {

// Losses are numbered in the order of the formula; the first two have the weight 1.
constexpr int kGeneratorTerms = 6, kAdversarialTerms = 2;
// The predictions of D_A and of D_B; what is compared with A (rec_A, idt_B) and with B (rec_B,
// idt_A), so that each original is read once.
constexpr int kGeneratorGroups = 4;

// acc: float, double for kFloat64.
struct GeneratorLossTerm {
  int loss;          // its number
  const void* made;  // [numel], or NULL: there is no such term
  void* grad;        // [numel]: d total / d made (or d z); or NULL
  int64_t partial;   // where the sums of its chunks begin in the workspace
};

// Tensors are read flat, in memory order.
struct GeneratorLossGroup {
  int64_t numel, chunks;  // loss_workspace(numel)
  const void* target;     // [numel], or NULL: the label of what is real, 1
  GeneratorLossTerm terms[2];
};

struct GeneratorLossFwdParams {
  Dtype dtype;         // of what is made and of gradients
  Dtype target_dtype;  // the same, or acc
  bool tanh;
  GeneratorLossGroup groups[kGeneratorGroups];
  const void* weights;  // acc [4]: of cycle_A, cycle_B, idt_A, idt_B
  const void* scale;    // acc [1], or NULL for 1
  void* losses;         // acc [6]
  void* total;          // acc [1]
  void* workspace;      // acc, see generator_loss_workspace
};

struct GeneratorLossScaled {
  int64_t numel, chunks;  // none where not asked for
  const void* grad;       // [numel], or NULL: not asked for
  void* scaled;           // [numel]: grad * grad_total
};

struct GeneratorLossBwdParams {
  Dtype dtype;
  const void* grad_total;  // acc [1]
  GeneratorLossScaled terms[kGeneratorTerms];
};

// Chunks of all groups, one after the other: what a launch's blocks, or the threads, share out.
static inline int64_t generator_loss_chunks(const GeneratorLossFwdParams& p) {
  int64_t chunks = 0;
  for (const GeneratorLossGroup& group : p.groups) chunks += group.chunks;
  return chunks;
}

// Elements of acc that the partial sums of predictions and images of so many elements take.
static inline int64_t generator_loss_workspace(int64_t pred_a, int64_t pred_b, int64_t image_a,
                                               int64_t image_b) {
  return loss_workspace(pred_a) + loss_workspace(pred_b) +
         2 * (loss_workspace(image_a) + loss_workspace(image_b));
}

}  // namespace cyclegan_fast
