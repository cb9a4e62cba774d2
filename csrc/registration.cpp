// SPDX-License-Identifier: MIT
// Every compiled op: the table of contents of the C++. They write into outputs that they are given,
// allocate nothing and know no autograd; torch.ops.cyclegan_fast.*, in Python, adds all that.
//
// act: 0 none, 1 relu, 2 leaky_relu. Statistics, sums and losses are float32, float64 for float64.
#include <string>

#include "common/isa.h"
#include "common/torch_stable.h"
#include "ops/generator_loss.h"
#include "ops/instance_norm_act.h"
#include "ops/instance_norm_act_plan.h"
#include "ops/loss.h"

STABLE_TORCH_LIBRARY(cyclegan_fast_C, library) {
  library.def(
      "instance_norm_act_fwd(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, int act, "
      "float negative_slope, int pad, float eps, Tensor(a!) y, Tensor(b!) mean, Tensor(c!) rstd, "
      "Tensor(d!) workspace) -> ()");
  library.def(
      "instance_norm_act_apply(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, "
      "Tensor mean, Tensor rstd, int act, float negative_slope, int pad, Tensor(a!) y) -> ()");
  library.def(
      "instance_norm_act_bwd(Tensor? grad_y, Tensor? grad_skip, Tensor x, Tensor? weight, "
      "Tensor? bias, Tensor mean, Tensor rstd, int act, float negative_slope, int pad, "
      "Tensor(a!) grad_x, Tensor(b!)? grad_residual, Tensor(c!) sums, Tensor(d!) workspace) "
      "-> ()");
  // The same from what a Triton convolution has left beside its own result, on CUDA and in
  // channels_last alone: moments, or sums, of chunks of each image (beside_norm.py).
  library.def(
      "instance_norm_act_finish(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, "
      "Tensor moments, int each, int pitch, int act, float negative_slope, int pad, float eps, "
      "Tensor(a!) y, Tensor(b!) mean, Tensor(c!) rstd) -> ()");
  library.def(
      "instance_norm_act_bwd_finish(Tensor? grad_y, Tensor? grad_skip, Tensor x, Tensor? weight, "
      "Tensor? bias, Tensor mean, Tensor rstd, Tensor partial, int act, float negative_slope, "
      "int pad, Tensor(a!) grad_x, Tensor(b!)? grad_residual, Tensor(c!) sums) -> ()");
  library.def(
      "instance_norm_act_finish_pair(Tensor[] x, Tensor?[] weight, Tensor?[] bias, "
      "Tensor?[] residual, Tensor[] moments, int each, int pitch, int act, float negative_slope, "
      "int pad, float eps, Tensor(a!)[] y, Tensor(b!)[] mean, Tensor(c!)[] rstd) -> ()");
  library.def(
      "instance_norm_act_bwd_finish_pair(Tensor?[] grad_y, Tensor?[] grad_skip, Tensor[] x, "
      "Tensor?[] weight, Tensor?[] bias, Tensor[] mean, Tensor[] rstd, Tensor[] partial, int act, "
      "float negative_slope, int pad, Tensor(a!)[] grad_x, Tensor(b!)[] grad_residual, "
      "Tensor(c!)[] sums) -> ()");
  // Two calls whose x have the same sizes, dtype and layout, of two networks side by side. An empty
  // grad_residual is none: PyTorch cannot follow lists of what may be written.
  library.def(
      "instance_norm_act_fwd_pair(Tensor[] x, Tensor?[] weight, Tensor?[] bias, "
      "Tensor?[] residual, int act, float negative_slope, int pad, float eps, Tensor(a!)[] y, "
      "Tensor(b!)[] mean, Tensor(c!)[] rstd, Tensor(d!)[] workspace) -> ()");
  library.def(
      "instance_norm_act_bwd_pair(Tensor?[] grad_y, Tensor?[] grad_skip, Tensor[] x, "
      "Tensor?[] weight, Tensor?[] bias, Tensor[] mean, Tensor[] rstd, int act, "
      "float negative_slope, int pad, Tensor(a!)[] grad_x, Tensor(b!)[] grad_residual, "
      "Tensor(c!)[] sums, Tensor(d!)[] workspace) -> ()");
  library.def(
      "instance_norm_act_workspace(int n, int c, int h, int w, bool channels_last, str device) "
      "-> int");

  // Around the library's products, on the CPU alone: of a thin layer, row by row, and of the
  // weight's gradient by Winograd's algorithm.
  library.def(
      "reflect_conv2d_sum_rows(Tensor rows, Tensor? bias, bool back, Tensor(a!) image) -> ()");
  library.def("reflect_conv2d_spread_rows(Tensor image, Tensor(a!) rows) -> ()");
  library.def(
      "reflect_conv2d_winograd_factors(Tensor image, bool of_result, int first, "
      "Tensor(a!) factors) -> ()");
  library.def("reflect_conv2d_winograd_gather(Tensor products, Tensor(a!) grad_weight) -> ()");

  // On a GPU of compute capability 9.0 alone, see reflect_conv2d_hopper.h and ..._hopper_weight.h;
  // one call or two. Of what is written an empty tensor is none.
  library.def(
      "reflect_conv2d_hopper_fwd(Tensor[] x, Tensor[] weight, Tensor?[] bias, "
      "Tensor?[] norm_mean, Tensor?[] norm_rstd, Tensor?[] norm_weight, Tensor?[] norm_bias, "
      "int act, float negative_slope, bool tanh, int positions, int columns, int each, "
      "Tensor(a!)[] y, Tensor(b!)[] moments) -> ()");
  library.def(
      "reflect_conv2d_hopper_bwd(Tensor[] grad_y, Tensor?[] y, Tensor[] weight, int positions, "
      "int columns, int each, Tensor?[] behind_x, Tensor?[] behind_mean, Tensor?[] behind_rstd, "
      "Tensor?[] behind_weight, Tensor?[] behind_sums, bool fold, Tensor?[] norm_x, "
      "Tensor?[] norm_mean, Tensor?[] norm_rstd, Tensor?[] norm_weight, Tensor?[] norm_bias, "
      "Tensor?[] norm_skip, int act, float negative_slope, int pad, bool masked, "
      "Tensor(a!)[] grad_x, Tensor(b!)[] partial) -> ()");
  library.def(
      "reflect_conv2d_hopper_bwd_weight(Tensor[] grad_y, Tensor?[] y, Tensor[] x, int groups, "
      "int columns, int each, Tensor(a!)[] grad_weight, Tensor(b!)[] grad_bias, "
      "Tensor(c!)[] workspace) -> ()");

  library.def("reflect_pad2d_fwd(Tensor x, int pad, Tensor(a!) y) -> ()");
  library.def("reflect_pad2d_copy(Tensor x, int pad, Tensor(a!) y) -> ()");
  library.def("reflect_pad2d_bwd(Tensor grad_y, int pad, Tensor(a!) grad_x) -> ()");

  library.def(
      "l1_loss_fwd(Tensor a, Tensor b, Tensor(a!) loss, Tensor(b!)? sign, Tensor(c!) workspace) "
      "-> ()");
  library.def(
      "l1_loss_bwd(Tensor grad_loss, Tensor sign, Tensor(a!)? grad_a, Tensor(b!)? grad_b) -> ()");

  library.def(
      "lsgan_loss_fwd(Tensor pred, Tensor? target, float target_value, Tensor(a!) loss, "
      "Tensor(b!) workspace) -> ()");
  library.def(
      "lsgan_loss_bwd(Tensor grad_loss, Tensor pred, Tensor? target, float target_value, "
      "Tensor(a!)? grad_pred, Tensor(b!)? grad_target) -> ()");
  library.def("loss_workspace(int numel) -> int");

  library.def(
      "generator_loss_fwd(Tensor pred_a, Tensor pred_b, Tensor rec_a, Tensor rec_b, Tensor? idt_a, "
      "Tensor? idt_b, Tensor real_a, Tensor real_b, Tensor weights, Tensor? scale, bool tanh, "
      "Tensor(a!) losses, Tensor(b!) total, Tensor(c!)? grad_pred_a, Tensor(d!)? grad_pred_b, "
      "Tensor(e!)? grad_rec_a, Tensor(f!)? grad_rec_b, Tensor(g!)? grad_idt_a, "
      "Tensor(h!)? grad_idt_b, Tensor(i!) workspace) -> ()");
  library.def(
      "generator_loss_bwd(Tensor grad_total, Tensor? grad_pred_a, Tensor? grad_pred_b, "
      "Tensor? grad_rec_a, Tensor? grad_rec_b, Tensor? grad_idt_a, Tensor? grad_idt_b, "
      "Tensor(a!)? scaled_pred_a, Tensor(b!)? scaled_pred_b, Tensor(c!)? scaled_rec_a, "
      "Tensor(d!)? scaled_rec_b, Tensor(e!)? scaled_idt_a, Tensor(f!)? scaled_idt_b) -> ()");
  library.def("generator_loss_workspace(int pred_a, int pred_b, int image_a, int image_b) -> int");

  library.def(
      "pool_exchange_fwd(Tensor(a!) rows, Tensor pictures, Tensor take, Tensor put, "
      "Tensor(b!) shown) -> ()");

  library.def(
      "augment_fwd(Tensor levels, Tensor table, Tensor taps, Tensor picks, Tensor(a!) out) -> ()");

  library.def("cpu_instruction_set() -> str");
}

namespace cyclegan_fast {
namespace {

int64_t instance_norm_act_workspace(int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last,
                                    std::string device) {
  return device == "cpu" ? instance_norm_act_cpu_workspace(n, c, h, channels_last)
                         : instance_norm_act_cuda_workspace(n, c, h, w, channels_last);
}

std::string cpu_instruction_set() { return name(active_isa()); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CompositeExplicitAutograd, library) {
  library.impl("instance_norm_act_workspace", TORCH_BOX(&instance_norm_act_workspace));
  library.impl("loss_workspace", TORCH_BOX(&loss_workspace));
  library.impl("generator_loss_workspace", TORCH_BOX(&generator_loss_workspace));
  library.impl("cpu_instruction_set", TORCH_BOX(&cpu_instruction_set));
}

}  // namespace cyclegan_fast
