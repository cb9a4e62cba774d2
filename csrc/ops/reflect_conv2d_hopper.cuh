// SPDX-License-Identifier: MIT
// What the parts of the kernel share: the walk over tiles, which all of a block's warps make in
// step, the rings of shared memory between them, and their barriers.
#pragma once

#include "common/hopper.cuh"
#include "common/index.cuh"
#include "common/launch.cuh"
#include "ops/instance_norm_act_activation.cuh"
#include "ops/reflect_conv2d_hopper.h"

namespace cyclegan_fast {

constexpr int kWarpgroup = 128;
constexpr int kLoaders = 96;  // three warps of the first warpgroup; the fourth fetches filters
constexpr int kMultipliers = 2 * kWarpgroup;
constexpr int kHopperThreads = kWarpgroup + kMultipliers;

struct HopperArguments {
  CUtensorMap filters[kHopperMostCalls];  // [C_out, 9, C]
  HopperParams p;
  HopperShared shared;
  int units, chunks, groups;  // in all; of an image; of columns
  int positions;              // of an image's result
  int pixels;                 // that a tile reads
  Divider row;                // positions to a row
  Activation<float> act;      // of the norm

  // Where a tile begins whose turn is at a position.
  template <bool kFolded>
  __device__ int begin(int position) const {
    if (!kFolded) return position;
    const int v =
        position - static_cast<int>(row.quotient(static_cast<uint32_t>(position))) * p.width;
    return position - (v <= 2 ? v : max(v - (p.width - 3), 0));
  }
};

// A block's next piece of work: some columns of a chunk of an image of a call.
struct HopperUnit {
  int call, chunk, column;
  int64_t n;

  // Neighbours read the same pixels: they come out of the L2 cache.
  __device__ HopperUnit(const HopperArguments& a, int unit, int columns) {
    column = unit % a.groups * columns;
    chunk = unit / a.groups % a.chunks;
    const int image = unit / a.groups / a.chunks;
    n = image % a.p.n;
    call = static_cast<int>(image / a.p.n);
  }
};

// Calls unit(u), then tile(u, first position, the one behind its last) for each of a unit's tiles,
// then done(u).
template <bool kFolded, typename Unit, typename Tile, typename Done>
__device__ inline void walk(const HopperArguments& a, int columns, const Unit& unit,
                            const Tile& tile, const Done& done) {
  const int step = kFolded ? kHopperFoldedStep : a.p.tile.positions;
  for (int i = static_cast<int>(blockIdx.x); i < a.units; i += static_cast<int>(gridDim.x)) {
    const HopperUnit u(a, i, columns);
    unit(u);
    const int begin = u.chunk * a.p.tile.each;
    const int end = min(begin + a.p.tile.each, a.positions);
    for (int first = begin; first < end; first += step)
      tile(u, a.begin<kFolded>(first), a.begin<kFolded>(min(first + step, end)));
    done(u);
  }
}

// Some taps of the pixels that a tile reads.
struct HopperPart {
  int only;         // the gradient's row that alone is there; -1: all are
  int first, last;  // taps

  // Rows from a position's own in shared memory to the one that a tap reads.
  template <bool kOfInput>
  __device__ int down(int tap) const {
    return kOfInput && only < 0 ? 2 - tap / 3 : tap / 3;
  }
};

// Calls part(HopperPart) for all that a tile sums up over 64 channels. The rows above and below the
// image are mirror images of its second and its last but one: folded, their three taps that meet
// the gradient are added there.
template <bool kFolded, typename Part>
__device__ inline void parts(const HopperArguments& a, int first, int last, const Part& part) {
  part(HopperPart{-1, 0, kTaps});
  if (!kFolded) return;
  const int far = (a.p.height - 4) * a.p.width;
  if (first < 2 * a.p.width && last > a.p.width) part(HopperPart{0, 0, 3});
  if (first < far + a.p.width && last > far) part(HopperPart{a.p.height - 3, 6, kTaps});
}

// Slots that are filled and emptied in turns. Whoever fills waits for the phase before the first.
struct Ring {
  unsigned char* slots;
  uint64_t *full, *empty;  // [count] barriers
  int bytes, count;
  int at = 0, phase = 0;

  __device__ Ring(unsigned char* memory, uint64_t* barriers, int slot_bytes, int slot_count)
      : slots(memory),
        full(barriers),
        empty(barriers + slot_count),
        bytes(slot_bytes),
        count(slot_count) {}

  __device__ void make(int fillers, int emptiers) const {
    for (int i = 0; i < count; ++i) {
      make_barrier(full + i, fillers);
      make_barrier(empty + i, emptiers);
    }
  }
  __device__ unsigned char* slot() const { return slots + at * bytes; }
  __device__ void wait_until_full() const { wait(full + at, phase); }
  __device__ void wait_until_empty() const { wait(empty + at, phase ^ 1); }
  __device__ void next() {
    if (++at == count) {
      at = 0;
      phase ^= 1;
    }
  }
};

struct HopperMemory {
  Ring filters, images;
  unsigned char* staged;  // [warps][kHopperStaged]
  float* partial;         // [warps][3][columns], then [warps]; [kHopperMostMirrored][columns]

  __device__ HopperMemory(const HopperArguments& a, unsigned char* memory, int columns)
      : HopperMemory(a.shared, aligned_up(memory), columns) {}

 private:
  __device__ HopperMemory(const HopperShared& s, unsigned char* memory, int columns)
      : filters(memory, barriers(s, memory, columns), s.filters, s.filter_slots),
        images(memory + s.filter_slots * s.filters, filters.empty + s.filter_slots, s.image,
               s.image_slots),
        staged(images.slots + s.image_slots * s.image),
        partial(reinterpret_cast<float*>(staged + kHopperWarps * kHopperStaged)) {}

  __device__ static unsigned char* aligned_up(unsigned char* p) {
    return p + (kHopperAlignment - shared_address(p) % kHopperAlignment) % kHopperAlignment;
  }
  __device__ static uint64_t* barriers(const HopperShared& s, unsigned char* p, int columns) {
    return reinterpret_cast<uint64_t*>(p + s.filter_slots * s.filters + s.image_slots * s.image +
                                       kHopperWarps * (kHopperStaged + (3 * columns + 1) * 4));
  }
};

}  // namespace cyclegan_fast
