// SPDX-License-Identifier: MIT
// The weight's gradient on Hopper: registers the raw op, and hands checked tensors to the kernels.
#include "ops/reflect_conv2d_hopper_weight_cuda.h"

#include "common/cuda_check.h"
#include "ops/reflect_conv2d_hopper_check.h"

namespace cyclegan_fast {
namespace {

// float32, or the operands' dtype.
Dtype written_dtype(const Checker& check, const char* argument, const Tensor& x, Dtype dtype) {
  const Dtype found = check.dtype(argument, x);
  if (found != Dtype::kFloat32 && found != dtype)
    check.fail(argument, text("of dtype float32 or ", name(dtype)), name(found));
  return found;
}

// Sizes of all calls by the first one's, and how the sum is cut.
HopperWeightParams params_of(const Checker& check, const Tensors& grads, const Tensors& images,
                             int64_t groups, int64_t columns, int64_t each) {
  check.four_dimensions("grad_y", grads[0]);
  check.four_dimensions("x", images[0]);
  const auto grad = grads[0].sizes(), x = images[0].sizes();
  HopperWeightParams p = {};
  p.dtype = checked_half(check, "grad_y", grads[0]);
  if (x[2] < 3 || x[3] < 3 || x[0] < 1 || x[0] * x[2] * x[3] >= kHopperMostPixels)
    check.fail(
        "x", text("large enough for its windows, and of fewer than ", kHopperMostPixels, " pixels"),
        list_text(x));
  if (grad[1] % 64 || x[1] % 64 || !grad[1] || !x[1])
    check.fail("x", "of multiples of 64 channels, as grad_y",
               text(list_text(x), " and ", list_text(grad)));
  if (groups < 1 || x[0] % groups)
    check.fail("groups", text("that divide ", x[0], " images"), text(groups));
  p.calls = static_cast<int>(grads.size());
  p.groups = static_cast<int>(groups);
  p.n = x[0] / groups;
  p.height = static_cast<int>(x[2]);
  p.width = static_cast<int>(x[3]);
  p.channels = static_cast<int>(x[1]);
  p.filters = static_cast<int>(grad[1]);
  if ((columns != 64 && columns != 128) || p.channels % columns)
    check.fail("columns", text("64 or 128, and divide ", p.channels, " channels"), text(columns));
  if (each < 1 || each > p.steps())
    check.fail("each", text("1 to ", p.steps(), ", the steps of a sum"), text(each));
  p.columns = static_cast<int>(columns);
  p.each = static_cast<int>(each);
  return p;
}

void bwd_weight(Tensors grad_y,     // [groups N, C_out, H - 2, W - 2]
                OptionalTensors y,  // like grad_y, where act was tanh
                Tensors x,          // [groups N, C, H, W], padded
                int64_t groups, int64_t columns, int64_t each,
                Tensors grad_weight,  // [groups C_out, C, 3, 3], float32 or as x, or empty
                Tensors grad_bias,    // [groups C_out], likewise
                Tensors workspace) {  // float32: all of both, for each split if there are several
  const char* const op = "reflect_conv2d_hopper_bwd_weight";
  const Tensor first = grad_y.empty() ? Tensor() : grad_y[0];
  const Checker check(op, first);
  if (grad_y.empty() || grad_y.size() > kHopperMostCalls)
    check.fail("grad_y", "of one or two calls", text(static_cast<int64_t>(grad_y.size())));
  for (const size_t count :
       {y.size(), x.size(), grad_weight.size(), grad_bias.size(), workspace.size()})
    check_calls(check, "an operand", count, grad_y.size());
  HopperWeightParams p = params_of(check, grad_y, x, groups, columns, each);
  const Shape of_grad = {groups * p.n, p.filters, p.height - 2, p.width - 2};
  const Shape of_x = {groups * p.n, p.channels, p.height, p.width};
  const Shape of_weight = {groups * p.filters, p.channels, 3, 3}, of_bias = {groups * p.filters};
  const bool with_weight = grad_weight[0].numel() > 0, with_bias = grad_bias[0].numel() > 0;
  p.weight_dtype = written_dtype(check, "grad_weight", grad_weight[0], p.dtype);
  p.bias_dtype = written_dtype(check, "grad_bias", grad_bias[0], p.dtype);
  for (size_t i = 0; i < grad_y.size(); ++i) {
    HopperWeightCall& call = p.call[i];
    if ((grad_weight[i].numel() > 0) != with_weight || (grad_bias[i].numel() > 0) != with_bias)
      check.fail("grad_weight and grad_bias", "given for all calls or for none", "both");
    call.grad_y = checked_image(check, "grad_y", grad_y[i], of_grad, p.dtype);
    if (y[i]) call.y = checked_image(check, "y", *y[i], of_grad, p.dtype);
    call.x = checked_image(check, "x", x[i], of_x, p.dtype);
    if (with_weight) {
      checked_image(check, "grad_weight", grad_weight[i], of_weight, p.weight_dtype);
      call.weight = mutable_data(grad_weight[i]);
    }
    if (with_bias) {
      check.contiguous("grad_bias", grad_bias[i], of_bias, p.bias_dtype);
      call.bias = mutable_data(grad_bias[i]);
      check_aligned(check, "grad_bias", call.bias);
    }
  }
  if (p.splits() > 1) {
    for (size_t i = 0; i < grad_y.size(); ++i) {
      check.workspace("workspace", workspace[i], p.splits() * p.elements(), Dtype::kFloat32);
      p.call[i].workspace = static_cast<float*>(mutable_data(workspace[i]));
      check_aligned(check, "workspace", p.call[i].workspace);
    }
  }
  const CudaDeviceGuard guard(first);
  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(first));
  check_launch(op, reflect_conv2d_hopper_weight(p, stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CUDA, library) {
  library.impl("reflect_conv2d_hopper_bwd_weight", TORCH_BOX(&bwd_weight));
}

}  // namespace cyclegan_fast
