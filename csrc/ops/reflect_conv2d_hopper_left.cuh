// SPDX-License-Identifier: MIT
// What is left for the norm beside the convolution: moments of a chunk of its result, or the two
// sums of a chunk of its input's gradient. Each warp has its own of its rows, two columns of 64 to
// a lane; then a thread per column adds the warps', in order.
#pragma once

#include "common/reduce.cuh"
#include "ops/reflect_conv2d_hopper_place.cuh"

namespace cyclegan_fast {

// A warp's 16 rows of 64 columns, in the dtype in which they are stored.
template <typename T>
struct Staged {
  unsigned char* rows;
  const HopperPlace* places;

  __device__ T* at(int row, int column) const {
    return reinterpret_cast<T*>(rows + row * kHopperStagedRow) + column;
  }
  // The lane's two columns of a row.
  __device__ void pair(int row, int lane, float (&value)[2]) const {
    unpack(load_vector<T, 2>(at(row, 2 * lane)), value);
  }
};

// About a pixel, so that nothing is lost far from zero: the mean less it, and squared deviations.
struct HopperMoments {
  float origin = 0, mean = 0, m2 = 0;

  // Of `mine` values, with `theirs` of which `other` is.
  __device__ void merge(float mine, const HopperMoments& other, float theirs) {
    if (mine == 0) origin = other.origin;
    const MergeWeights<float> weights(mine, theirs);
    merge_moments(mean, m2, other.origin - origin + other.mean, other.m2, weights);
  }
};

template <typename T, int kColumns>
struct LeftMoments {
  static constexpr int kRows = 3;
  HopperMoments own[kColumns / 64][2], chunk;
  float count = 0, chunk_count = 0;

  __device__ void begin_chunk() {
    chunk = HopperMoments();
    chunk_count = 0;
  }
  __device__ void begin_tile() { count = 0; }

  __device__ void add(const HopperArguments&, const HopperUnit&, int group, int lane,
                      const Staged<T>& staged) {
    HopperMoments rows[2];
    float number = 0, value[kStagedRows][2];
#pragma unroll
    for (int r = 0; r < kStagedRows; ++r) {
      staged.pair(r, lane, value[r]);
      if (staged.places[r].target < 0) continue;
      if (number == 0) rows[0].origin = value[r][0], rows[1].origin = value[r][1];
      number += 1;
    }
    if (number == 0) return;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      HopperMoments& of = rows[k];
      // Twice over registers: as exact as twice over memory.
#pragma unroll
      for (int r = 0; r < kStagedRows; ++r)
        of.mean += staged.places[r].target < 0 ? 0 : value[r][k] - of.origin;
      of.mean /= number;
#pragma unroll
      for (int r = 0; r < kStagedRows; ++r) {
        const float d = staged.places[r].target < 0 ? 0 : value[r][k] - of.origin - of.mean;
        of.m2 += d * d;
      }
      if (count == 0) own[group][k] = HopperMoments();
      own[group][k].merge(count, of, number);
    }
    if (group == kColumns / 64 - 1) count += number;
  }

  // partial: [warps][3][columns], then [warps].
  __device__ void leave(float* partial, int warp, int lane) const {
#pragma unroll
    for (int group = 0; group < kColumns / 64; ++group) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        float* const to = partial + warp * kRows * kColumns + group * 64 + 2 * lane + k;
        to[0] = own[group][k].origin;
        to[kColumns] = own[group][k].mean;
        to[2 * kColumns] = own[group][k].m2;
      }
    }
    if (lane == 0) partial[kHopperWarps * kRows * kColumns + warp] = count;
  }

  __device__ void gather(const float* partial, int column) {
    for (int warp = 0; warp < kHopperWarps; ++warp) {
      const float theirs = partial[kHopperWarps * kRows * kColumns + warp];
      if (theirs == 0) continue;
      const float* const from = partial + warp * kRows * kColumns + column;
      HopperMoments other;
      other.origin = from[0], other.mean = from[kColumns], other.m2 = from[2 * kColumns];
      chunk.merge(chunk_count, other, theirs);
      chunk_count += theirs;
    }
  }

  // to: [3, channels] at the thread's column.
  __device__ void write(float* to, int64_t channels) const {
    to[0] = chunk.origin;
    to[channels] = chunk.mean;
    to[2 * channels] = chunk.m2;
  }
};

template <typename T, int kColumns, bool kFolded>
struct LeftSums {
  static constexpr int kRows = 2;
  float own[kColumns / 64][2][kRows], chunk[kRows];

  __device__ void begin_chunk() { chunk[0] = chunk[1] = 0; }
  __device__ void begin_tile() {
#pragma unroll
    for (auto& group : own)
#pragma unroll
      for (auto& column : group) column[0] = column[1] = 0;
  }

  __device__ void add(const HopperArguments& a, const HopperUnit& u, int group, int lane,
                      const Staged<T>& staged) {
    const HopperNorm& norm = a.p.call[u.call].norm;
    const int channel = u.column + group * 64 + 2 * lane;
    const int width = a.p.width - 2 * a.p.pad;
    const int64_t pixels = int64_t{a.p.height - 2 * a.p.pad} * width;
    const T* const x = static_cast<const T*>(norm.x) + u.n * pixels * a.p.channels + channel;
    const T* const skip = static_cast<const T*>(norm.skip.data) +
                          (norm.skip.data ? u.n * norm.skip.n + channel * norm.skip.c : 0);
    float mean[2], rstd[2], scale[2], bias[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      mean[k] = norm.mean[u.n * a.p.channels + channel + k];
      rstd[k] = norm.rstd[u.n * a.p.channels + channel + k];
      scale[k] = norm.weight ? rstd[k] * norm.weight[channel + k] : rstd[k];
      bias[k] = norm.bias ? norm.bias[channel + k] : 0;
    }
    for (int r = 0; r < kStagedRows; ++r) {
      const HopperPlace place = staged.places[r];
      if (place.target < 0) continue;
      float g[2], value[2];
      staged.pair(r, lane, g);
      unpack(load_vector<T, 2>(x + (int64_t{place.h} * width + place.w) * a.p.channels), value);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (skip && (kFolded || place.own))
          g[k] += static_cast<float>(
              skip[place.h * norm.skip.h + place.w * norm.skip.w + k * norm.skip.c]);
        value[k] -= mean[k];
        g[k] = a.act.gradient(g[k], value[k] * scale[k] + bias[k]);
      }
      if (kFolded && a.p.masked) {
        store(g, staged.at(r, 2 * lane));
        staged.pair(r, lane, g);  // the sums are those of what is written
      }
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        own[group][k][0] += g[k];
        own[group][k][1] += g[k] * value[k] * rstd[k];
      }
    }
  }

  // partial: [warps][2][columns].
  __device__ void leave(float* partial, int warp, int lane) const {
#pragma unroll
    for (int i = 0; i < kColumns / 64 * 2 * kRows; ++i) {
      const int group = i / 4, k = i / 2 % 2, row = i % 2;
      partial[(warp * kRows + row) * kColumns + group * 64 + 2 * lane + k] = own[group][k][row];
    }
  }

  __device__ void gather(const float* partial, int column) {
    for (int warp = 0; warp < kHopperWarps; ++warp)
      for (int row = 0; row < kRows; ++row)
        chunk[row] += partial[(warp * kRows + row) * kColumns + column];
  }

  // to: [2, channels] at the thread's column.
  __device__ void write(float* to, int64_t channels) const {
    to[0] = chunk[0];
    to[channels] = chunk[1];
  }
};

}  // namespace cyclegan_fast
