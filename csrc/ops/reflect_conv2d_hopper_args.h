// SPDX-License-Identifier: MIT
// reflect_conv2d on Hopper: tensors checked and turned into params.
#pragma once

#include "ops/reflect_conv2d_hopper.h"
#include "ops/reflect_conv2d_hopper_check.h"

namespace cyclegan_fast {

enum class HopperWay { kForward, kNormed, kOfInput, kFolded };

class HopperChecker {
 public:
  HopperParams params = {};

  // images: of each call, the padded image, or that to be normed, or the gradient of a result.
  HopperChecker(const char* op, HopperWay way, const Tensors& images, const Tensors& weights,
                const HopperTile& tile)
      : first_(images.empty() ? Tensor() : images[0]), check_(op, first_) {
    const bool normed = way == HopperWay::kNormed, folded = way == HopperWay::kFolded;
    const bool of_input = way == HopperWay::kOfInput || folded;
    const char* const what = of_input ? "grad_y" : "x";
    const auto calls = static_cast<int64_t>(images.size());
    if (calls < 1 || calls > kHopperMostCalls)
      check_.fail(what, "of one or two calls", text(calls));
    count("weight", weights.size(), images.size());
    check_.four_dimensions(what, first_);
    check_.four_dimensions("weight", weights[0]);
    const auto sizes = first_.sizes(), weight = weights[0].sizes();
    params.dtype = checked_half(check_, what, first_);
    if (weight[0] % 64 || weight[1] % 64 || !weight[0] || !weight[1])
      check_.fail("weight", "of multiples of 64 channels", list_text(weight));
    const int64_t border = of_input || normed ? 2 : 0, least = normed || folded ? 4 : 3;
    const int64_t height = sizes[2] + border, width = sizes[3] + border;
    if (height < least || width < (folded ? kHopperLeastFolded : least) ||
        sizes[0] * height * width >= kHopperMostPixels)
      check_.fail(
          what,
          text("large enough for its windows, and of fewer than ", kHopperMostPixels, " pixels"),
          list_text(sizes));
    params.of_input = of_input;
    params.normed = normed;
    params.folded = folded;
    params.calls = static_cast<int>(calls);
    params.tile = tile;
    params.n = sizes[0];
    params.height = static_cast<int>(height);
    params.width = static_cast<int>(width);
    params.depth = static_cast<int>(weight[of_input ? 0 : 1]);
    params.channels = static_cast<int>(weight[of_input ? 1 : 0]);
    check_tile(tile);
    for (size_t i = 0; i < images.size(); ++i) {
      params.call[i].image = image(what, images[i], {params.n, params.depth, sizes[2], sizes[3]});
      params.call[i].weight = image("weight", weights[i], {weight[0], weight[1], 3, 3});
    }
  }

  const Checker& check() const { return check_; }
  const Tensor& first() const { return first_; }

  // Memory of an image of the calls' dtype.
  const void* image(const char* argument, const Tensor& x, const Shape& shape) const {
    return checked_image(check_, argument, x, shape, params.dtype);
  }
  void* image_out(const char* argument, const Tensor& x, const Shape& shape) const {
    image(argument, x, shape);
    return mutable_data(x);
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
    check_.contiguous(argument, x, {params.n, params.chunks(), rows, params.channels},
                      Dtype::kFloat32);
    return static_cast<float*>(mutable_data(x));
  }

  void count(const char* argument, size_t found, size_t expected) const {
    check_calls(check_, argument, found, expected);
  }

 private:
  void check_tile(const HopperTile& tile) const {
    const bool known = (tile.positions == 128 && (tile.columns == 64 || tile.columns == 128)) ||
                       (tile.positions == 256 && tile.columns == 128);
    if ((params.normed || params.folded) && tile.positions != 128)
      check_.fail("positions", "128 where x is to be normed, or grad_x folded",
                  text(tile.positions));
    if (!known || params.channels % tile.columns || tile.each < 1 || tile.each % params.step())
      check_.fail("tile", text("one that divides ", params.channels, " channels and its chunk"),
                  list_text(Shape{tile.positions, tile.columns, tile.each}));
    if (hopper_shared(tile, params.width).total > kHopperShared)
      check_.fail("tile", "of fewer positions, for its pixels to fit into shared memory",
                  text(tile.positions, " of images ", params.width, " wide"));
  }

  Tensor first_;
  Checker check_;
};

}  // namespace cyclegan_fast
