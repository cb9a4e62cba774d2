// SPDX-License-Identifier: MIT
// What the warps of the weight's gradient share: the walk over units of work, which all of a
// block's warps make in step, and the warps that bring operands.
#pragma once

#include "ops/reflect_conv2d_hopper_load.cuh"
#include "ops/reflect_conv2d_hopper_weight.h"

namespace cyclegan_fast {

constexpr int kWeightLoaders = kWarpgroup / 32;  // warps

struct HopperWeightArguments {
  HopperWeightParams p;
  int units, steps, splits;
  int64_t of_weight, elements;            // of all layers' weights; and of their biases as well
  int rows, filter_tiles, channel_tiles;  // of a split's sum; without a weight only bias's
  Divider across, height;                 // steps to a row, rows to an image of the result
};

// A block's next piece of work: one split's sum for some filters, a row of taps and some channels.
struct WeightUnit {
  int call, layer, split, row, filter, channel;
  int begin;  // its first step

  // Neighbours read the same pixels: they come out of the L2 cache.
  __device__ WeightUnit(const HopperWeightArguments& a, int unit) {
    channel = unit % a.channel_tiles * a.p.columns;
    unit /= a.channel_tiles;
    filter = unit % a.filter_tiles * kWeightFilters;
    unit /= a.filter_tiles;
    row = unit % a.rows;
    unit /= a.rows;
    split = unit % a.splits;
    unit /= a.splits;
    layer = unit % a.p.groups;
    call = unit / a.p.groups;
    begin = split * a.p.each;
  }

  // That have filters here: of an odd multiple of 64 the last block has only one's.
  __device__ int warpgroups(const HopperWeightArguments& a) const {
    return a.p.filters - filter > 64 ? 2 : 1;
  }
};

// A step's place in a layer's sum. The last split may have some that are beyond it, of no pixel.
struct WeightStep {
  int row;     // of all images' results
  int column;  // the first one
  int pixels;  // that are there

  __device__ WeightStep(const HopperWeightArguments& a, int step) {
    const int within = min(step, a.steps - 1);
    row = static_cast<int>(a.across.quotient(static_cast<uint32_t>(within)));
    column = (within - row * static_cast<int>(a.across.divisor)) * kWeightPixels;
    pixels = step < a.steps ? min(kWeightPixels, a.p.width - 2 - column) : 0;
  }
  // Products are 16 pixels deep; those beyond the row are zeros. One at least: none is unfinished
  // that a later step takes for done.
  __device__ int products() const { return max(pixels + 15, 16) / 16; }
};

// Brings `channels` of the `of` of each of `count` pixels into planes; zeros take the place of
// those that are not `there`. Eight lanes read 128 bytes of one pixel, and write a plane each.
template <typename T>
__device__ inline void load_planes(const T* from, const T* own, int of, int channels, int count,
                                   int there, int plane_bytes, unsigned char* planes) {
  const int lane = threadIdx.x % 32;
  for (int plane = lane % 8; plane < channels / 8; plane += 8) {
    T* const to = reinterpret_cast<T*>(planes + plane * plane_bytes);
#pragma unroll 1
    for (int k = lane / 8; k < count; k += 4) {
      const int64_t at = int64_t{k < there ? k : 0} * of + plane * kWidest<T>;
      if (own && k < there) {
        store_16_bytes(times_derivative(from + at, own + at), to + k * kWidest<T>);
      } else {
        copy_16_bytes(to + k * kWidest<T>, from + at, k < there);
      }
    }
  }
}

// Each warp brings every fourth step of the block, so that loads of several are under way. Where
// it is follows from the step's number alone: there are few registers to remember it in.
template <typename T, int kColumns>
__device__ inline void load_steps(const HopperWeightArguments& a, Ring ring) {
  for (int number = threadIdx.x / 32;; number += kWeightLoaders) {
    const int unit = static_cast<int>(blockIdx.x + number / a.p.each * gridDim.x);
    if (unit >= a.units) return;
    const WeightUnit u(a, unit);
    const WeightStep step(a, u.begin + number % a.p.each);
    const HopperWeightCall& call = a.p.call[u.call];
    const int row = u.layer * static_cast<int>(a.p.n) * (a.p.height - 2) + step.row;
    // Before this one every image has two rows more.
    const int of_image = row + static_cast<int>(a.height.quotient(static_cast<uint32_t>(row))) * 2;
    ring.at = number % ring.count;
    ring.phase = number / ring.count % 2;
    ring.wait_until_empty();
    const int count = step.products() * 16;
    // A tanh's derivative takes registers: what it reads comes last.
    const int64_t image =
        int64_t{(of_image + u.row) * a.p.width + step.column} * a.p.channels + u.channel;
    load_planes<T>(static_cast<const T*>(call.x) + image, nullptr, a.p.channels, kColumns,
                   count + 2, step.pixels ? step.pixels + 2 : 0, kImagePlane,
                   ring.slot() + kWeightFilters / 8 * kGradPlane);
    const int64_t grad = int64_t{row * (a.p.width - 2) + step.column} * a.p.filters + u.filter;
    load_planes(static_cast<const T*>(call.grad_y) + grad,
                call.y ? static_cast<const T*>(call.y) + grad : nullptr, a.p.filters,
                u.warpgroups(a) * 64, count, step.pixels, kGradPlane, ring.slot());
    wait_for_copies();
    publish_to_products();
    arrive(ring.full + ring.at);
  }
}

}  // namespace cyclegan_fast
