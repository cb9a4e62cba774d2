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
  HopperChecker checked(op, normed ? HopperWay::kNormed : HopperWay::kForward, x, weight,
                        tile_of(positions, columns, each));
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

// The norm behind, whose backward is applied to grad_y; NULL where grad_y is read as it is.
void set_behind(HopperChecker& checked, const Tensor& grad_y, const OptionalTensor& x,
                const OptionalTensor& mean, const OptionalTensor& rstd,
                const OptionalTensor& weight, const OptionalTensor& sums, HopperCall& call) {
  const HopperParams& p = checked.params;
  if (!p.graded) return;
  if (!x || !mean || !rstd || !sums)
    checked.check().fail("behind_sums", "given with behind_x, for each call", "none");
  if (call.own) checked.check().fail("y", "none where a norm is behind", "a tensor");
  HopperNormBehind& norm = call.behind;
  norm.x = checked.image("behind_x", *x, {p.n, p.depth, grad_y.sizes()[2], grad_y.sizes()[3]});
  norm.mean = checked.floats("behind_mean", mean, {p.n, p.depth});
  norm.rstd = checked.floats("behind_rstd", rstd, {p.n, p.depth});
  norm.weight = checked.floats("behind_weight", weight, {p.depth});
  norm.sums = checked.floats("behind_sums", sums, {p.n, 2, p.depth});
}

void bwd(Tensors grad_y,     // [N, C_out, H - 2, W - 2]; dz of the norm behind, if there is one
         OptionalTensors y,  // like grad_y, where act was tanh
         Tensors weight,     // [C_out, C, 3, 3]
         int64_t positions, int64_t columns, int64_t each,
         OptionalTensors behind_x,       // like grad_y
         OptionalTensors behind_mean,    // float32 [N, C_out]
         OptionalTensors behind_rstd,    // float32 [N, C_out]
         OptionalTensors behind_weight,  // float32 [C_out]
         OptionalTensors behind_sums,    // float32 [N, 2, C_out]
         bool fold,                      // grad_x without the border, which it is added to
         OptionalTensors norm_x,         // [N, C, H - 2 pad, W - 2 pad], if its sums are wanted
         OptionalTensors norm_mean,      // float32 [N, C]
         OptionalTensors norm_rstd,      // float32 [N, C]
         OptionalTensors norm_weight,    // float32 [C]
         OptionalTensors norm_bias,      // float32 [C]
         OptionalTensors norm_skip,      // like norm_x, any strides
         int64_t act, double negative_slope, int64_t pad,
         bool masked,        // grad_x is dz of the norm
         Tensors grad_x,     // [N, C, H, W]; folded [N, C, H - 2, W - 2]
         Tensors partial) {  // float32 [N, chunks, 2, C], or empty
  const char* const op = "reflect_conv2d_hopper_bwd";
  HopperChecker checked(op, fold ? HopperWay::kFolded : HopperWay::kOfInput, grad_y, weight,
                        tile_of(positions, columns, each));
  HopperParams& p = checked.params;
  const Checker& check = checked.check();
  for (const auto* given :
       {&y, &norm_x, &norm_mean, &norm_rstd, &norm_weight, &norm_bias, &norm_skip, &behind_x,
        &behind_mean, &behind_rstd, &behind_weight, &behind_sums})
    checked.count("an operand", given->size(), grad_y.size());
  checked.count("grad_x", grad_x.size(), grad_y.size());
  checked.count("partial", partial.size(), grad_y.size());
  check_act(checked, act);
  const int64_t height = p.height - 2 * pad, width = p.width - 2 * pad;
  check.pad(pad, height, width);
  if (fold && pad != 1) check.fail("pad", "1 where grad_x is folded", text(pad));
  p.act = static_cast<int>(act);
  p.pad = static_cast<int>(pad);
  p.negative_slope = negative_slope;
  p.graded = behind_x[0].has_value();
  if (p.graded && !fold) check.fail("behind_x", "none where grad_x is not folded", "a tensor");
  p.masked = masked;
  const int64_t border = fold ? 2 : 0;
  for (size_t i = 0; i < grad_y.size(); ++i) {
    HopperCall& call = p.call[i];
    if (y[i]) call.own = checked.image("y", *y[i], {p.n, p.depth, p.height - 2, p.width - 2});
    set_behind(checked, grad_y[i], behind_x[i], behind_mean[i], behind_rstd[i], behind_weight[i],
               behind_sums[i], call);
    call.result = checked.image_out("grad_x", grad_x[i],
                                    {p.n, p.channels, p.height - border, p.width - border});
    call.left = checked.left("partial", partial[i], 2);
    if (masked && (!fold || !call.left))
      check.fail("masked", "false where grad_x is not folded or no sums are wanted", "true");
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
