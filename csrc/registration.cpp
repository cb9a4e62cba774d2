// SPDX-License-Identifier: MIT
// Every compiled op: the table of contents of the C++. They write into outputs that they are given,
// allocate nothing and know no autograd; torch.ops.cyclegan_fast.*, in Python, adds all that.
//
// act: 0 none, 1 relu, 2 leaky_relu. Statistics, sums and losses are float32, float64 for float64.
#include <string>

#include "common/isa.h"
#include "common/torch_stable.h"
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
  library.def(
      "instance_norm_act_workspace(int n, int c, int h, int w, bool channels_last, str device) "
      "-> int");

  library.def("reflect_pad2d_fwd(Tensor x, int pad, Tensor(a!) y) -> ()");
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
  library.impl("cpu_instruction_set", TORCH_BOX(&cpu_instruction_set));
}

}  // namespace cyclegan_fast
