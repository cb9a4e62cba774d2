// SPDX-License-Identifier: MIT
// reflect_conv2d on Hopper: registers the raw ops, and hands checked tensors to the kernel.
#include "ops/reflect_conv2d_hopper_cuda.h"

#include "common/cuda_check.h"
#include "ops/reflect_conv2d_hopper_args.h"

namespace cyclegan_fast {
namespace {

HopperTile tile_of(int64_t positions, int64_t columns, int64_t each) {
  return {static_cast<int>(positions), static_cast<int>(columns), static_cast<int>(each)};
}

void launch_on(const char* op, const HopperChecker& checked) {
  const CudaDeviceGuard guard(checked.first());
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(checked.first()));
  check_launch(op, reflect_conv2d_hopper(checked.params, stream));
}

void check_act(const HopperChecker& checked, int64_t act) {
  if (act < 0 || act > 2) checked.check().fail("act", "0, 1 or 2", text(act));
}

void fwd(Tensors x,                    // [N, C, H, W], padded; [N, C, H - 2, W - 2] to be normed
         Tensors weight,               // [C_out, C, 3, 3]
         OptionalTensors bias,         // [C_out]
         OptionalTensors norm_mean,    // float32 [N, C], where x is to be normed and reflected
         OptionalTensors norm_rstd,    // float32 [N, C]
         OptionalTensors norm_weight,  // float32 [C]
         OptionalTensors norm_bias,    // float32 [C]
         int64_t act, double negative_slope, bool tanh, int64_t positions, int64_t columns,
         int64_t each,
         Tensors y,          // [N, C_out, H - 2, W - 2]
         Tensors moments) {  // float32 [N, chunks, 3, C_out], or empty
  const char* const op = "reflect_conv2d_hopper_fwd";
  const bool normed = !norm_mean.empty() && norm_mean[0];
  HopperChecker checked(op, false, normed, x, weight, tile_of(positions, columns, each));
  HopperParams& p = checked.params;
  for (const auto* given : {&bias, &norm_mean, &norm_rstd, &norm_weight, &norm_bias})
    checked.count("an operand", given->size(), x.size());
  checked.count("y", y.size(), x.size());
  checked.count("moments", moments.size(), x.size());
  check_act(checked, act);
  p.act = static_cast<int>(act);
  p.negative_slope = negative_slope;
  p.tanh = tanh;
  for (size_t i = 0; i < x.size(); ++i) {
    HopperCall& call = p.call[i];
    call.result = checked.image_out("y", y[i], {p.n, p.channels, p.height - 2, p.width - 2});
    if (bias[i]) checked.check().contiguous("bias", *bias[i], {p.channels}, p.dtype);
    call.bias = data(bias[i]);
    call.left = checked.left("moments", moments[i], 3);
    if (!normed) continue;
    if (!norm_mean[i] || !norm_rstd[i])
      checked.check().fail("norm_rstd", "given with norm_mean, for each call", "none");
    HopperNorm& norm = call.norm;
    norm.mean = checked.floats("norm_mean", norm_mean[i], {p.n, p.depth});
    norm.rstd = checked.floats("norm_rstd", norm_rstd[i], {p.n, p.depth});
    norm.weight = checked.floats("norm_weight", norm_weight[i], {p.depth});
    norm.bias = checked.floats("norm_bias", norm_bias[i], {p.depth});
  }
  launch_on(op, checked);
}

void bwd(Tensors grad_y,     // [N, C_out, H - 2, W - 2]
         OptionalTensors y,  // like grad_y, where act was tanh
         Tensors weight,     // [C_out, C, 3, 3]
         int64_t positions, int64_t columns, int64_t each,
         OptionalTensors norm_x,       // [N, C, H - 2 pad, W - 2 pad], if its sums are wanted
         OptionalTensors norm_mean,    // float32 [N, C]
         OptionalTensors norm_rstd,    // float32 [N, C]
         OptionalTensors norm_weight,  // float32 [C]
         OptionalTensors norm_bias,    // float32 [C]
         OptionalTensors norm_skip,    // like norm_x, any strides
         int64_t act, double negative_slope, int64_t pad,
         Tensors grad_x,     // [N, C, H, W]
         Tensors partial) {  // float32 [N, chunks, 2, C], or empty
  const char* const op = "reflect_conv2d_hopper_bwd";
  HopperChecker checked(op, true, false, grad_y, weight, tile_of(positions, columns, each));
  HopperParams& p = checked.params;
  const Checker& check = checked.check();
  for (const auto* given :
       {&y, &norm_x, &norm_mean, &norm_rstd, &norm_weight, &norm_bias, &norm_skip})
    checked.count("an operand", given->size(), grad_y.size());
  checked.count("grad_x", grad_x.size(), grad_y.size());
  checked.count("partial", partial.size(), grad_y.size());
  check_act(checked, act);
  const int64_t height = p.height - 2 * pad, width = p.width - 2 * pad;
  check.pad(pad, height, width);
  p.act = static_cast<int>(act);
  p.pad = static_cast<int>(pad);
  p.negative_slope = negative_slope;
  for (size_t i = 0; i < grad_y.size(); ++i) {
    HopperCall& call = p.call[i];
    if (y[i]) call.own = checked.image("y", *y[i], {p.n, p.depth, p.height - 2, p.width - 2});
    call.result = checked.image_out("grad_x", grad_x[i], {p.n, p.channels, p.height, p.width});
    call.left = checked.left("partial", partial[i], 2);
    if (!call.left) continue;
    HopperNorm& norm = call.norm;
    const Shape image = {p.n, p.channels, height, width};
    if (!norm_x[i] || !norm_mean[i] || !norm_rstd[i])
      check.fail("partial", "empty where there is no norm", "a tensor");
    norm.x = checked.image("norm_x", *norm_x[i], image);
    norm.mean = checked.floats("norm_mean", norm_mean[i], {p.n, p.channels});
    norm.rstd = checked.floats("norm_rstd", norm_rstd[i], {p.n, p.channels});
    norm.weight = checked.floats("norm_weight", norm_weight[i], {p.channels});
    norm.bias = checked.floats("norm_bias", norm_bias[i], {p.channels});
    if (!norm_skip[i]) continue;
    check.like("norm_skip", *norm_skip[i], image, p.dtype);
    const auto strides = norm_skip[i]->strides();
    norm.skip = {data(norm_skip[i]), strides[0], strides[1], strides[2], strides[3]};
  }
  launch_on(op, checked);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("reflect_conv2d_hopper_fwd", TORCH_BOX(&fwd));
  library.impl("reflect_conv2d_hopper_bwd", TORCH_BOX(&bwd));
}

}  // namespace cyclegan_fast
