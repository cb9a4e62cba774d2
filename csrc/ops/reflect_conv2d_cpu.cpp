// SPDX-License-Identifier: MIT
// reflect_conv2d on the CPU: registers the raw ops around the library's products, and shares
// windows, channels and rows out among the threads.
#include "common/check.h"
#include "ops/reflect_conv2d_cpu_kernels.h"

namespace cyclegan_fast {
namespace {

const float* floats(const Tensor& x) { return static_cast<const float*>(data(x)); }
float* mutable_floats(const Tensor& x) { return static_cast<float*>(mutable_data(x)); }

void reflect_conv2d_winograd_factors(const Tensor& image,  // [N, C, H, W], channels_last
                                     bool of_result, int64_t first,
                                     const Tensor& factors) {  // [windows, 16, C]
  const Checker check("reflect_conv2d_winograd_factors", image);
  check.four_dimensions("image", image);
  const auto sizes = image.sizes();
  const int64_t n = sizes[0], c = sizes[1], h = sizes[2], w = sizes[3];
  check.image("image", image, {n, c, h, w}, Dtype::kFloat32, Layout::kChannelsLast);
  const int64_t beyond = of_result ? 0 : 2;  // pixels of x that no window of results begins at
  if (h <= beyond || w <= beyond)
    check.fail("image", text("larger than ", beyond, " pixels"), list_text(sizes));
  const int64_t rows = (h - beyond + 1) / 2, columns = (w - beyond + 1) / 2;
  if (factors.dim() != 3)
    check.fail("factors", "of shape [windows, 16, C]", list_text(factors.sizes()));
  const int64_t count = factors.sizes()[0];
  check.contiguous("factors", factors, {count, kWinogradProducts, c}, Dtype::kFloat32);
  if (first < 0 || first + count > n * rows * columns)
    check.fail("first", text("at least 0, with ", count, " of ", n * rows * columns, " windows"),
               text(first));
  const WinogradFactorsParams params{.of_result = of_result,
                                     .c = c,
                                     .h = h,
                                     .w = w,
                                     .rows = rows,
                                     .columns = columns,
                                     .first = first,
                                     .count = count,
                                     .image = floats(image),
                                     .factors = mutable_floats(factors)};
  parallel_for(count, kWinogradProducts * c, [&](int64_t begin, int64_t end) {
    reflect_conv2d_kernels().factors(params, begin, end);
  });
}

void reflect_conv2d_winograd_gather(const Tensor& products,       // [16, C_out, C]
                                    const Tensor& grad_weight) {  // [C_out, C, 3, 3]
  const Checker check("reflect_conv2d_winograd_gather", products);
  if (products.dim() != 3)
    check.fail("products", "of shape [16, C_out, C]", list_text(products.sizes()));
  const int64_t out_channels = products.sizes()[1], channels = products.sizes()[2];
  check.contiguous("products", products, {kWinogradProducts, out_channels, channels},
                   Dtype::kFloat32);
  check.image("grad_weight", grad_weight, {out_channels, channels, 3, 3}, Dtype::kFloat32,
              Layout::kChannelsLast);
  const WinogradGatherParams params{.out_channels = out_channels,
                                    .channels = channels,
                                    .products = floats(products),
                                    .grad_weight = mutable_floats(grad_weight)};
  parallel_for(out_channels, kWinogradProducts * channels, [&](int64_t begin, int64_t end) {
    reflect_conv2d_kernels().gather(params, begin, end);
  });
}

// What both directions have in common; whichever of the two is written.
ThinRowsParams thin_rows(const Checker& check, const Tensor& rows, const Tensor& image) {
  check.four_dimensions("rows", rows);
  check.four_dimensions("image", image);
  const auto wide = rows.sizes(), thin = image.sizes();
  const int64_t n = thin[0], c = thin[1], h = thin[2], w = thin[3];
  const Dtype dtype = check.dtype("image", image);
  check.image("image", image, {n, c, h, w}, dtype, Layout::kChannelsLast);
  const int64_t taps = c ? wide[1] / c : 0;
  check.image("rows", rows, {n, taps * c, wide[2], w}, dtype, Layout::kChannelsLast);
  ThinRowsParams params;
  params.dtype = dtype;
  params.taps = taps;
  params.c = c;
  params.w = w;
  params.h = h;
  params.rows_h = wide[2];
  return params;
}

void reflect_conv2d_sum_rows(const Tensor& rows,  // [N, taps C, rows, W], channels_last
                             const OptionalTensor& bias, bool back,
                             const Tensor& image) {  // [N, C, H, W], channels_last
  const Checker check("reflect_conv2d_sum_rows", rows);
  ThinRowsParams params = thin_rows(check, rows, image);
  if (bias) check.contiguous("bias", *bias, {params.c}, params.dtype);
  params.back = back;
  params.rows = data(rows);
  params.bias = data(bias);
  params.image_out = mutable_data(image);
  parallel_for(
      image.sizes()[0] * params.h, params.w * params.taps * params.c,
      [&](int64_t begin, int64_t end) { reflect_conv2d_kernels().sum_rows(params, begin, end); });
}

void reflect_conv2d_spread_rows(const Tensor& image,   // [N, C, H, W], channels_last
                                const Tensor& rows) {  // [N, taps C, rows, W], channels_last
  const Checker check("reflect_conv2d_spread_rows", image);
  ThinRowsParams params = thin_rows(check, rows, image);
  params.image = data(image);
  params.rows_out = mutable_data(rows);
  parallel_for(image.sizes()[0] * params.rows_h, params.w * params.taps * params.c,
               [&](int64_t begin, int64_t end) {
                 reflect_conv2d_kernels().spread_rows(params, begin, end);
               });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cyclegan_fast_C, CPU, library) {
  library.impl("reflect_conv2d_sum_rows", TORCH_BOX(&reflect_conv2d_sum_rows));
  library.impl("reflect_conv2d_spread_rows", TORCH_BOX(&reflect_conv2d_spread_rows));
  library.impl("reflect_conv2d_winograd_factors", TORCH_BOX(&reflect_conv2d_winograd_factors));
  library.impl("reflect_conv2d_winograd_gather", TORCH_BOX(&reflect_conv2d_winograd_gather));
}

}  // namespace cyclegan_fast
