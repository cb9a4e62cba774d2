// SPDX-License-Identifier: MIT
// reflect_conv2d on Hopper: what the torch side hands to a kernel. 3x3, stride 1, of images that
// are padded already, all in channels_last; see docs/derivations/reflect_conv2d.md, "hopper".
//
//   forward     result[n, i, j] = act(bias + sum over r, s of image[n, i + r, j + s] w[r, s])
//               where it is normed, of reflect_pad(act(instance_norm(image)), 1) in image's place
//   of_input    result[n, u, v] = sum over r, s of image[n, u - r, v - s] w[r, s]', zero outside
//               folded, that and what its mirror images have, without the border
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/strided.h"

namespace cyclegan_fast {

constexpr int kTaps = 9;
constexpr int kHopperMostCalls = 2;
constexpr int kHopperDepth = 64;  // channels that are summed over at a time
constexpr int kHopperShared = 227 << 10;

// The norm whose result the convolution reads. Forward, where it is normed: statistics of the
// image. For the gradient of the input: its backward's two sums are wanted, see
// beside_norm.NormOfInput; folded, `pad` is 1 as the image has been padded.
struct HopperNorm {
  const void* x = nullptr;        // [N, height - 2 pad, width - 2 pad, C]
  const float* mean = nullptr;    // [N, C]
  const float* rstd = nullptr;    // [N, C]
  const float* weight = nullptr;  // [C], or NULL for 1
  const float* bias = nullptr;    // [C], or NULL for 0
  Strided skip;                   // [N, C, height - 2 pad, width - 2 pad], or absent
};

// The norm behind the convolution, whose backward is applied to the image of of_input, see
// beside_norm.NormGradient.
struct HopperNormBehind {
  const void* x = nullptr;        // like the image
  const float* mean = nullptr;    // [N, C_out]
  const float* rstd = nullptr;    // [N, C_out]
  const float* weight = nullptr;  // [C_out], or NULL for 1
  const float* sums = nullptr;    // [N, 2, C_out]
};

struct HopperCall {
  // [N, height, width, C]; normed without the border, [N, height - 2, width - 2, C]; of_input
  // [N, height - 2, width - 2, C_out].
  const void* image = nullptr;
  const void* own = nullptr;     // of_input, like image: the tanh whose derivative that is to have
  const void* weight = nullptr;  // [C_out, 3, 3, C]
  const void* bias = nullptr;    // forward: [C_out], or NULL
  // Forward: [N, height - 2, width - 2, C_out]; of_input: [N, height, width, C], or folded without
  // the border.
  void* result = nullptr;
  float* left = nullptr;  // [N, chunks, 3, C_out] moments, or [N, chunks, 2, C] sums; or NULL
  HopperNorm norm;
  HopperNormBehind behind;  // where it is graded
};

// How the work is cut: a block makes `positions` x `columns` of the result at a time, counted at
// the pitch of the padded image, and all of a chunk of `each` positions.
struct HopperTile {
  int positions;  // 128 or 256
  int columns;    // 64 or 128 channels of the result; of 256 positions 128
  int each;       // a multiple of positions; folded, of kHopperFoldedStep
};

// Folded, a tile of 128 positions begins up to two before its turn: no mirror image of a column is
// parted from what it shows. Its columns' mirror images are then at most so many.
constexpr int kHopperFoldedStep = 126, kHopperMostMirrored = 24;
constexpr int kHopperLeastFolded = 12;  // how wide the padded image must be for that

struct HopperParams {
  Dtype dtype;  // float16 or bfloat16
  bool of_input;
  int calls;  // of the same sizes, one or two
  HopperTile tile;
  int64_t n;
  int height, width;  // of the padded image
  int depth;          // channels of image, a multiple of kHopperDepth
  int channels;       // of the result, a multiple of the tile's columns
  bool tanh;          // of forward's result
  bool normed;        // forward's image, while it is loaded, and reflected by one pixel
  bool graded;        // folded's image, by the norm behind, while it is loaded
  bool folded;        // of_input's result
  bool masked;        // which is dz of the norm then, of which the sums are
  int act, pad;       // of norm: 0 none, 1 relu, 2 leaky_relu
  double negative_slope;
  HopperCall call[kHopperMostCalls];

  // Positions of one image's result, of which those beyond its width are no pixels.
  int positions() const { return (of_input && !folded ? height : height - 2) * width; }
  int step() const { return folded ? kHopperFoldedStep : tile.positions; }
  int chunks() const { return (positions() + tile.each - 1) / tile.each; }
};

// How shared memory is divided, in bytes. Two rings: filters of one tap, and images, which are the
// pixels that all nine taps of a tile's positions read. A pixel's channels lie in planes of eight,
// 16 bytes, so that a tap, some pixels further on, is the same planes from a later address.
struct HopperShared {
  int filter_slots, image_slots;
  int filters, plane, image;  // a slot of filters, a plane, the planes of a slot of images
  int total;                  // at most kHopperShared, or the tile does not fit
};

constexpr int kHopperWarps = 8;                // that multiply
constexpr int kHopperStagedRow = 64 * 2 + 16;  // of results on their way out: no bank twice
constexpr int kHopperStaged = 16 * kHopperStagedRow + 16 * 16;  // of a warp: rows, and where to
constexpr int kHopperAlignment = 1024;  // of filters: the accelerator's pattern repeats

// Pixels that a tile's positions read: those of its last tap lie two rows and two further on.
inline int hopper_pixels(const HopperTile& tile, int width) {
  return tile.positions + 2 * width + 2;
}

inline HopperShared hopper_shared(const HopperTile& tile, int width) {
  constexpr int kMostFilterSlots = 8, kEnoughFilterSlots = 4;
  HopperShared s;
  s.filters = tile.columns * kHopperDepth * 2;
  // One more than a multiple of eight: the eight planes of a pixel lie in different banks.
  s.plane = (hopper_pixels(tile, width) + 6) / 8 * 8 * 16 + 16;
  s.image = kHopperDepth / 8 * s.plane;
  const int rest = kHopperAlignment + kHopperWarps * (kHopperStaged + (3 * tile.columns + 1) * 4) +
                   2 * (kMostFilterSlots + 2) * 8;
  const auto filter_slots = [&] {
    const int slots = (kHopperShared - rest - s.image_slots * s.image) / s.filters;
    return slots < kMostFilterSlots ? slots : kMostFilterSlots;
  };
  s.image_slots = 2;
  if (filter_slots() < kEnoughFilterSlots) s.image_slots = 1;
  s.filter_slots = filter_slots() < 2 ? 2 : filter_slots();
  s.total = rest + s.image_slots * s.image + s.filter_slots * s.filters;
  return s;
}

}  // namespace cyclegan_fast
