// SPDX-License-Identifier: MIT
// Channels of a channels_last image, some vectors at a time. Anonymous namespace: see vec.h.
#pragma once

#include "common/vec.h"

namespace cyclegan_fast {
namespace {

// kVectors vectors of channels from `begin` on, whose constants and sums stay in registers while a
// kernel walks the pixels. kPartial: one vector, of which `count` lanes are channels.
template <class T, int kVectorsInBlock, bool kPartial>
struct ChannelBlock {
  static constexpr int kVectors = kVectorsInBlock;
  int64_t begin, count;

  // Vector k of the block; `pixel` points to the values of all channels, of any type.
  template <class From>
  CYCLEGAN_FAST_INLINE Vec<T> load(const From* pixel, int k) const {
    const From* from = pixel + begin + k * kLanes<T>;
    if constexpr (kPartial) return load_partial(from, count);
    return cyclegan_fast::load(from);
  }

  template <class To>
  CYCLEGAN_FAST_INLINE void store(To* pixel, int k, Vec<T> value) const {
    To* to = pixel + begin + k * kLanes<T>;
    if constexpr (kPartial) return store_partial(to, value, count);
    cyclegan_fast::store(to, value);
  }
};

// Calls body(block) until all channels have had their turn.
template <class T, class Body>
CYCLEGAN_FAST_INLINE void for_channels(int64_t channels, const Body& body) {
  constexpr int kVectors = kVectorBytes == 64 ? 4 : 2;  // of 32 or 16 registers
  constexpr int64_t kStep = kVectors * kLanes<T>;
  int64_t c = 0;
  for (; c + kStep <= channels; c += kStep) body(ChannelBlock<T, kVectors, false>{c, kStep});
  for (; c + kLanes<T> <= channels; c += kLanes<T>) body(ChannelBlock<T, 1, false>{c, kLanes<T>});
  if (c < channels) body(ChannelBlock<T, 1, true>{c, channels - c});
}

}  // namespace
}  // namespace cyclegan_fast
