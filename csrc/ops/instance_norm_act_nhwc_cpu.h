// SPDX-License-Identifier: MIT
// instance_norm_act on the CPU, channels_last: how an image is divided, and what its channels
// multiply and add. Anonymous namespace: see common/vec.h.
#pragma once

#include "common/tiles.h"
#include "ops/instance_norm_act_cpu_kernels.h"
#include "ops/instance_norm_act_math.h"

namespace cyclegan_fast {
namespace {

// The rows of one band of one image; `task` counts bands over all images.
struct Band {
  int64_t n, begin, end;

  CYCLEGAN_FAST_INLINE Band(const InstanceNormActSizes& p, int64_t task) {
    const int64_t bands = instance_norm_act_bands(p.h), band = task % bands;
    n = task / bands;
    begin = band * p.h / bands;
    end = (band + 1) * p.h / bands;
  }
};

// The channels of one image that are merged together; `task` counts groups over all images.
struct Group {
  int64_t n, begin, size;

  CYCLEGAN_FAST_INLINE Group(const InstanceNormActSizes& p, int64_t task) {
    const int64_t groups = (p.c + kChannelGroup - 1) / kChannelGroup;
    n = task / groups;
    begin = task % groups * kChannelGroup;
    size = smaller(kChannelGroup, p.c - begin);
  }
};

// Two arrays [C] that a band leaves behind.
template <class T, class Params>
CYCLEGAN_FAST_INLINE Acc<T>* partial(const Params& p, int64_t band) {
  return static_cast<Acc<T>*>(p.workspace) + 2 * band * p.c;
}

template <class A>
CYCLEGAN_FAST_INLINE void clear(A* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = 0;
}

// What the channels of image n multiply and add, in arrays [C].
template <class T>
struct ChannelConstants {
  const Acc<T>* mean;
  Acc<T>*scale, *bias;

  // scratch: [2, C].
  template <class Params>
  CYCLEGAN_FAST_INLINE ChannelConstants(const Params& p, int64_t n, Acc<T>* scratch)
      : mean(static_cast<const Acc<T>*>(p.mean) + n * p.c), scale(scratch), bias(scratch + p.c) {
    const Acc<T>* rstd = static_cast<const Acc<T>*>(p.rstd) + n * p.c;
    for (int64_t c = 0; c < p.c; ++c) {
      scale[c] = rstd[c] * channel_value<Acc<T>>(p.weight, c, 1);
      bias[c] = channel_value<Acc<T>>(p.bias, c, 0);
    }
  }

  template <class Tile>
  CYCLEGAN_FAST_INLINE Affine<T> of(const Tile& tile) const {
    return {tile.load(mean), tile.load(scale), tile.load(bias)};
  }
};

}  // namespace
}  // namespace cyclegan_fast
