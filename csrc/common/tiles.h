// SPDX-License-Identifier: MIT
// Some pixels of a channels_last image at a time, in the order in which they lie in memory.
// Anonymous namespace: see vec.h.
#pragma once

#include "common/vec.h"

namespace cyclegan_fast {
namespace {

// One vector of channels of kPixels neighbouring pixels: what belongs to a channel is loaded once
// for all of them. kPartial: only `count` lanes are channels.
template <class T, int kPixelsInTile, bool kPartial>
struct Tile {
  static constexpr int kPixels = kPixelsInTile;
  int64_t pixel, channel, count;

  // Pixel k of the tile, of an image whose pixels lie `pitch` values apart.
  template <class From>
  CYCLEGAN_FAST_INLINE Vec<T> load(const From* image, int64_t pitch, int k) const {
    prefetch_ahead(image + (pixel + k) * pitch + channel);
    return load(image + (pixel + k) * pitch);
  }
  template <class To>
  CYCLEGAN_FAST_INLINE void store(To* image, int64_t pitch, int k, Vec<T> value) const {
    prefetch_ahead_to_write(image + (pixel + k) * pitch + channel);
    store(image + (pixel + k) * pitch, value);
  }

  // The tile's channels of an array [C].
  template <class From>
  CYCLEGAN_FAST_INLINE Vec<T> load(const From* channels) const {
    if constexpr (kPartial) return load_partial(channels + channel, count);
    return cyclegan_fast::load(channels + channel);
  }
  template <class To>
  CYCLEGAN_FAST_INLINE void store(To* channels, Vec<T> value) const {
    if constexpr (kPartial) return store_partial(channels + channel, value, count);
    cyclegan_fast::store(channels + channel, value);
  }
};

template <class T, int kPixels, class Body>
CYCLEGAN_FAST_INLINE void for_channels(int64_t pixel, int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes<T> <= channels; c += kLanes<T>)
    body(Tile<T, kPixels, false>{pixel, c, kLanes<T>});
  if (c < channels) body(Tile<T, kPixels, true>{pixel, c, channels - c});
}

// Calls body(tile) for all channels of the pixels [0, pixels). Memory is read nearly in order: a
// kernel that takes some channels through all pixels and then the next ones keeps its sums in
// registers, but reads cold memory at half the speed (measured 2026-11).
template <class T, class Body>
CYCLEGAN_FAST_INLINE void for_tiles(int64_t pixels, int64_t channels, const Body& body) {
  int64_t i = 0;
  for (; i + 4 <= pixels; i += 4) for_channels<T, 4>(i, channels, body);
  for (; i < pixels; ++i) for_channels<T, 1>(i, channels, body);
}

}  // namespace
}  // namespace cyclegan_fast
