// SPDX-License-Identifier: MIT
// reflect_conv2d on Hopper (sm_90a alone): one warpgroup brings operands, two multiply, and each
// block goes on to its next tile while the last one's results are on their way out.
#include "common/dispatch.cuh"
#include "ops/reflect_conv2d_hopper_cuda.h"
#include "ops/reflect_conv2d_hopper_left.cuh"
#include "ops/reflect_conv2d_hopper_load.cuh"
#include "ops/reflect_conv2d_hopper_place.cuh"

namespace cyclegan_fast {
namespace {

// Of a thread: a block begins with 168 for each of 384, and two of three warpgroups then take from
// the first. More than there are at first would be waited for, for ever. Sums take 64 or 128.
template <int kBlocks>
struct Registers {
  static constexpr int kAtFirst = 168;
  static constexpr int kLoader = kBlocks == 1 ? 120 : 56, kMultiplier = kBlocks == 1 ? 192 : 224;
  static_assert(kLoader * kWarpgroup + kMultiplier * kMultipliers <= kAtFirst * kHopperThreads);
};

// Multiplies a tile: kBlocks times 64 rows of each warpgroup. Filters are released by the step
// after theirs, when the products that read them are known to be done.
template <typename T, bool kOfInput, int kBlocks, int kColumns, bool kFolded>
__device__ inline void multiply_tile(const HopperArguments& a, int first, int last, Ring& filters,
                                     Ring& images, int warpgroup,
                                     float (&sums)[kBlocks][kColumns / 2]) {
  uint64_t *read_filters = nullptr, *read_image = nullptr;  // that products may still read
  const auto release = [&] {
    if (threadIdx.x % 32 == 0 && read_filters) arrive(read_filters);
    if (threadIdx.x % 32 == 0 && read_image) arrive(read_image);
    read_filters = read_image = nullptr;
  };
  const auto multiply_part = [&](int c, const HopperPart& part) {
    images.wait_until_full();
    const uint64_t image =
        matrix_descriptor(shared_address(images.slot()), a.shared.plane, 8 * 16, Swizzle::kNone);
    for (int tap = part.first; tap < part.last; ++tap) {
      filters.wait_until_full();
      const int right = kOfInput ? 2 - tap % 3 : tap % 3;
      const int row = warpgroup * kBlocks * 64 + part.down<kOfInput>(tap) * a.p.width + right;
      const bool begun = part.only >= 0 || c + tap > 0;
      const uint64_t filter =
          matrix_descriptor(shared_address(filters.slot()), kOfInput ? kHopperDepth * 128 : 16,
                            8 * 128, Swizzle::k128Bytes);
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) hold(sums[m]);
      begin_products();
#pragma unroll
      for (int k = 0; k < kHopperDepth / 16; ++k) {
        const uint64_t of_filter = advanced(filter, k * (kOfInput ? 16 * 128 : 16 * 2));
#pragma unroll
        for (int m = 0; m < kBlocks; ++m) {
          const uint64_t of_image = advanced(image, (row + m * 64) * 16 + k * 2 * a.shared.plane);
          multiply<T, kColumns, kOfInput>(sums[m], of_image, of_filter, begun || k > 0);
        }
      }
      commit_products();
      wait_for_products<1>();
      release();
      read_filters = filters.empty + filters.at;
      filters.next();
    }
    read_image = images.empty + images.at;
    images.next();
    if (images.count > 1) return;
    wait_for_products<0>();  // the next image takes this one's place
    release();
  };
  for (int c = 0; c < a.p.depth; c += kHopperDepth)
    parts<kFolded>(a, first, last, [&](const HopperPart& part) { multiply_part(c, part); });
  wait_for_products<0>();
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) hold(sums[m]);
  release();
}

// Rounds 16 rows of 64 columns of a warp's sums into shared memory.
template <typename T, bool kOfInput, int kColumns>
__device__ inline void stage(const HopperArguments& a, const HopperUnit& u, int group, int lane,
                             const float (&sums)[kColumns / 2], const Staged<T>& staged) {
  const T* const bias = static_cast<const T*>(a.p.call[u.call].bias);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int column = j * 8 + lane % 4 * 2;
#pragma unroll
    for (int down = 0; down < 2; ++down) {
      float value[2];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        value[k] = sums[(group * 8 + j) * 4 + down * 2 + k];
        if (!kOfInput && bias)
          value[k] += static_cast<float>(bias[u.column + group * 64 + column + k]);
        if (!kOfInput && a.p.tanh) value[k] = tanhf(value[k]);
      }
      store(value, staged.at(lane / 4 + down * 8, column));
    }
  }
}

// Writes the staged rows: eight lanes one of 128 bytes.
template <typename T>
__device__ inline void write_rows(const HopperArguments& a, const HopperUnit& u, int64_t pixels,
                                  int group, int lane, const Staged<T>& staged) {
  constexpr int kVector = kWidest<T>;
  const int column = lane % 8 * kVector;
  T* const result = static_cast<T*>(a.p.call[u.call].result) + u.n * pixels * a.p.channels +
                    u.column + group * 64 + column;
#pragma unroll
  for (int r = lane / 8; r < kStagedRows; r += 4) {
    const int target = staged.places[r].target;
    if (target >= 0)
      store_vector(load_vector<T, kVector>(staged.at(r, column)),
                   result + int64_t{target} * a.p.channels);
  }
}

template <typename T, bool kOfInput, int kBlocks, int kColumns, bool kFolded>
__device__ inline void multiply_and_write(const HopperArguments& a, HopperMemory& memory) {
  using Left =
      std::conditional_t<kOfInput, LeftSums<T, kColumns, kFolded>, LeftMoments<T, kColumns>>;
  const int thread = static_cast<int>(threadIdx.x) - kWarpgroup;
  const int warp = thread / 32, lane = thread % 32, warpgroup = warp / 4;
  unsigned char* const rows = memory.staged + warp * kHopperStaged;
  auto* const places = reinterpret_cast<HopperPlace*>(rows + kStagedRows * kHopperStagedRow);
  const Staged<T> staged = {rows, places};
  const int64_t pixels = kOfInput && !kFolded ? int64_t{a.p.height} * a.p.width
                                              : int64_t{a.p.height - 2} * (a.p.width - 2);
  Left left;
  const auto tile = [&](const HopperUnit& u, int first, int last) {
    float sums[kBlocks][kColumns / 2];
    multiply_tile<T, kOfInput, kBlocks, kColumns, kFolded>(a, first, last, memory.filters,
                                                           memory.images, warpgroup, sums);
    left.begin_tile();
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      const int row = (warpgroup * kBlocks + m) * 64 + warp % 4 * 16;
      if (lane < kStagedRows)
        places[lane] = kFolded ? folded_place_of(a, first + row + lane, first, last)
                               : place_of<kOfInput>(a, first + row + lane);
      if constexpr (kFolded) {
        __syncwarp();
        fold_columns<kColumns>(memory.partial, places, lane, sums[m]);
      }
#pragma unroll
      for (int group = 0; group < kColumns / 64; ++group) {
        stage<T, kOfInput, kColumns>(a, u, group, lane, sums[m], staged);
        __syncwarp();
        if (kFolded && a.p.call[u.call].left) {  // dz takes the place of what it is made of
          left.add(a, u, group, lane, staged);
          __syncwarp();
        }
        write_rows(a, u, pixels, group, lane, staged);
        if (!kFolded && a.p.call[u.call].left) left.add(a, u, group, lane, staged);
        __syncwarp();
      }
    }
    if (!a.p.call[u.call].left) return;
    left.leave(memory.partial, warp, lane);
    wait_for_threads<1, kMultipliers>();
    if (thread < kColumns) left.gather(memory.partial, thread);
    wait_for_threads<1, kMultipliers>();
  };
  const auto done = [&](const HopperUnit& u) {
    if (!a.p.call[u.call].left || thread >= kColumns) return;
    const int64_t chunk = (u.n * a.chunks + u.chunk) * Left::kRows * a.p.channels;
    left.write(a.p.call[u.call].left + chunk + u.column + thread, a.p.channels);
  };
  walk<kFolded>(a, kColumns, [&](const HopperUnit&) { left.begin_chunk(); }, tile, done);
}

template <typename T, bool kOfInput, int kBlocks, int kColumns, bool kFolded>
__global__ void __launch_bounds__(kHopperThreads, 1)
    reflect_conv2d_hopper_kernel(const __grid_constant__ HopperArguments a) {
  CYCLEGAN_FAST_SHARED(unsigned char, raw);
  HopperMemory memory(a, raw, kColumns);
  if (threadIdx.x == 0) {
    memory.filters.make(1, kHopperWarps);
    memory.images.make(kLoaders, kHopperWarps);
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    give_up_registers<Registers<kBlocks>::kLoader>();
    if (threadIdx.x >= kWarpgroup - kLoaders) {
      // A norm wants more registers than the loaders of large tiles have.
      load_image<T, kOfInput, kBlocks == 1 && (kFolded || !kOfInput), kFolded>(
          a, memory.images, threadIdx.x - (kWarpgroup - kLoaders), kColumns);
    } else if (threadIdx.x == 0) {
      load_filters<kOfInput, kColumns, kFolded>(a, memory.filters);
    }
  } else {
    take_registers<Registers<kBlocks>::kMultiplier>();
    multiply_and_write<T, kOfInput, kBlocks, kColumns, kFolded>(a, memory);
  }
}

// The weight as the accelerator sees it: [C_out][9 taps][C], in boxes of 64 of C of one tap.
cudaError_t describe(const HopperParams& p, CUtensorMap (&maps)[kHopperMostCalls]) {
  const EncodeTiled encode = encode_tiled();
  if (!encode) return cudaErrorNotSupported;
  const auto inner = static_cast<cuuint64_t>(p.of_input ? p.channels : p.depth);
  const auto outer = static_cast<cuuint64_t>(p.of_input ? p.depth : p.channels);
  const auto rows = static_cast<cuuint32_t>(p.of_input ? kHopperDepth : p.tile.columns);
  const cuuint64_t sizes[] = {inner, kTaps, outer}, strides[] = {inner * 2, kTaps * inner * 2};
  const cuuint32_t box[] = {64, 1, rows}, every[] = {1, 1, 1};
  const auto type = p.dtype == Dtype::kFloat16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                               : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  for (int i = 0; i < p.calls; ++i) {
    const CUresult result =
        encode(&maps[i], type, 3, const_cast<void*>(p.call[i].weight), sizes, strides, box, every,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS) return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

template <typename T, bool kOfInput, int kBlocks, int kColumns, bool kFolded = false>
cudaError_t run(const HopperArguments& a, cudaStream_t stream) {
  const auto kernel = reflect_conv2d_hopper_kernel<T, kOfInput, kBlocks, kColumns, kFolded>;
  int blocks = 0;
  if (const cudaError_t error = multiprocessors(&blocks)) return error;
  if (const cudaError_t error = allow_shared(kernel, a.shared.total)) return error;
  return launch(kernel, static_cast<unsigned>(a.units < blocks ? a.units : blocks), kHopperThreads,
                a.shared.total, stream, a);
}

template <typename T, bool kOfInput>
cudaError_t run_tile(const HopperArguments& a, cudaStream_t stream) {
  if constexpr (kOfInput) {
    if (a.p.folded)
      return a.p.tile.columns == 64 ? run<T, true, 1, 64, true>(a, stream)
                                    : run<T, true, 1, 128, true>(a, stream);
  }
  if (a.p.tile.positions == 256) return run<T, kOfInput, 2, 128>(a, stream);
  return a.p.tile.columns == 64 ? run<T, kOfInput, 1, 64>(a, stream)
                                : run<T, kOfInput, 1, 128>(a, stream);
}

}  // namespace

cudaError_t reflect_conv2d_hopper(const HopperParams& p, cudaStream_t stream) {
  InstanceNormActSizes norm = {};
  norm.act = p.act;
  norm.negative_slope = p.negative_slope;
  HopperArguments a = {.p = p, .act = Activation<float>(norm)};
  if (const cudaError_t error = describe(p, a.filters)) return error;
  a.shared = hopper_shared(p.tile, p.width);
  a.positions = p.positions();
  a.pixels = hopper_pixels(p.tile, p.width);
  a.chunks = p.chunks();
  a.groups = p.channels / p.tile.columns;
  const int64_t units = p.calls * p.n * a.chunks * a.groups;
  if (units >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  a.units = static_cast<int>(units);
  if (units == 0) return cudaSuccess;
  a.row = Divider(static_cast<uint32_t>(p.width));
  const auto run_type = [&](auto tag) {
    using T = typename decltype(tag)::type;
    return p.of_input ? run_tile<T, true>(a, stream) : run_tile<T, false>(a, stream);
  };
  return p.dtype == Dtype::kFloat16 ? run_type(TypeTag<half>{}) : run_type(TypeTag<bfloat16>{});
}

}  // namespace cyclegan_fast
