// SPDX-License-Identifier: MIT
// reflect_conv2d on Hopper: tensors checked and turned into params.
#pragma once

#include "common/check.h"
#include "ops/reflect_conv2d_hopper.h"

namespace cyclegan_fast {

class HopperChecker {
 public:
  // images: of each call, the padded image or, of_input, the gradient of a result.
  HopperChecker(const char* op, bool of_input, const Tensors& images, const Tensors& weights,
                const HopperTile& tile)
      : op_(op), first_(images.empty() ? Tensor() : images[0]), check_(op, first_) {
    const auto calls = static_cast<int64_t>(images.size());
    if (calls < 1 || calls > kHopperMostCalls)
      check_.fail(name(of_input), text("of one or two calls"), text(calls));
    count("weight", weights.size(), images.size());
    params.of_input = of_input;
    params.calls = static_cast<int>(calls);
    params.tile = tile;
    params.dtype = check_.dtype(name(of_input), first_);
    if (params.dtype != Dtype::kFloat16 && params.dtype != Dtype::kBFloat16)
      check_.fail(name(of_input), "float16 or bfloat16", cyclegan_fast::name(params.dtype));
    check_.four_dimensions(name(of_input), first_);
    check_.four_dimensions("weight", weights[0]);
    const auto image = first_.sizes(), weight = weights[0].sizes();
    const int64_t border = of_input ? 2 : 0, height = image[2] + border, width = image[3] + border;
    out_channels = weight[0], channels = weight[1];
    if (out_channels % 64 || channels % 64 || !out_channels || !channels)
      check_.fail("weight", "of multiples of 64 channels", list_text(weight));
    if (height < 3 || width < 3 || image[0] * height * width >= kMostPixels)
      check_.fail(name(of_input), text("of 3 x 3 or more and fewer than ", kMostPixels, " pixels"),
                  list_text(image));
    params.n = image[0];
    params.height = static_cast<int>(height);
    params.width = static_cast<int>(width);
    params.depth = static_cast<int>(of_input ? out_channels : channels);
    params.channels = static_cast<int>(of_input ? channels : out_channels);
    check_tile(tile);
    for (size_t i = 0; i < images.size(); ++i) {
      params.call[i].image =
          aligned(name(of_input), images[i], {image[0], params.depth, image[2], image[3]});
      params.call[i].weight = aligned("weight", weights[i], {out_channels, channels, 3, 3});
    }
  }

  // An image of the calls' dtype, dense in channels_last and aligned for vector accesses.
  void* aligned(const char* argument, const Tensor& x, const Shape& shape) const {
    check_.image(argument, x, shape, params.dtype, Layout::kChannelsLast);
    void* const p = mutable_data(x);
    if (reinterpret_cast<uintptr_t>(p) % 16)
      check_.fail(argument, "aligned to 16 bytes; copy it with clone()", "an odd offset");
    return p;
  }

  // Float32 numbers by channel, or image and channel; NULL if there are none.
  const float* floats(const char* argument, const OptionalTensor& x, const Shape& shape) const {
    if (!x) return nullptr;
    check_.contiguous(argument, *x, shape, Dtype::kFloat32);
    return static_cast<const float*>(data(x));
  }

  // Memory for what is left by chunks; an empty tensor is none.
  float* left(const char* argument, const Tensor& x, int64_t rows) const {
    if (x.numel() == 0) return nullptr;
    const Shape shape = {params.n, params.chunks(), rows, params.channels};
    check_.contiguous(argument, x, shape, Dtype::kFloat32);
    return static_cast<float*>(mutable_data(x));
  }

  void count(const char* argument, size_t found, size_t expected) const {
    if (found != expected)
      check_.fail(argument, text("of ", static_cast<int64_t>(expected), " calls"),
                  text(static_cast<int64_t>(found)));
  }

  const Checker& check() const { return check_; }
  const Tensor& first() const { return first_; }

  HopperParams params = {};
  int64_t channels = 0, out_channels = 0;  // of the weight

 private:
  static constexpr int64_t kMostPixels = int64_t{1} << 30;

  static const char* name(bool of_input) { return of_input ? "grad_y" : "x"; }

  void check_tile(const HopperTile& tile) const {
    const bool known = (tile.positions == 128 && (tile.columns == 64 || tile.columns == 128)) ||
                       (tile.positions == 256 && tile.columns == 128);
    if (!known || params.channels % tile.columns || tile.each < 1 || tile.each % tile.positions)
      check_.fail("tile", text("one that divides ", params.channels, " channels and its chunk"),
                  list_text(Shape{tile.positions, tile.columns, tile.each}));
    if (hopper_shared(tile, params.width).total > kHopperShared)
      check_.fail("tile", "of fewer positions, for its pixels to fit into shared memory",
                  text(tile.positions, " of images ", params.width, " wide"));
  }

  const char* op_;
  Tensor first_;
  Checker check_;
};

}  // namespace cyclegan_fast
