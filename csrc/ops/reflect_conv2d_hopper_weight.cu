// SPDX-License-Identifier: MIT
// The gradients of reflect_conv2d's weight and bias on Hopper (sm_90a alone): a product over all
// pixels. One warpgroup brings operands, two multiply; splits of the sum are added up by a second
// kernel, in their order.
#include "common/dispatch.cuh"
#include "ops/reflect_conv2d_hopper_weight.cuh"
#include "ops/reflect_conv2d_hopper_weight_cuda.h"

namespace cyclegan_fast {
namespace {

// Of a thread, see Registers in reflect_conv2d_hopper.cu. Sums take 192, and bias's four.
constexpr int kWeightLoader = 40, kWeightMultiplier = 232;
static_assert(kWeightLoader * kWarpgroup + kWeightMultiplier * kMultipliers <=
              168 * kHopperThreads);

// Sums of three taps, and if it is asked for of the bias. A slot is given back by the step after
// its own, when the products that read it are known to be done.
template <typename T, int kColumns, bool kBias>
__device__ inline void multiply_steps(const HopperWeightArguments& a, const WeightUnit& u,
                                      Ring& ring, uint64_t ones, int warpgroup,
                                      float (&sums)[3][kColumns / 2], float (&bias)[4]) {
  uint64_t* read = nullptr;  // that products may still read
  const auto release = [&] {
    if (threadIdx.x % 32 == 0 && read) arrive(read);
  };
  const auto hold_all = [&] {
#pragma unroll
    for (int s = 0; s < 3; ++s) hold(sums[s]);
    if (kBias) hold(bias);
  };
  for (int step = 0; step < a.p.each; ++step) {
    ring.wait_until_full();
    // Eight pixels of eight channels lie side by side; then come eight more, or the next plane.
    const uint32_t planes = shared_address(ring.slot());
    const uint64_t grads =
        matrix_descriptor(planes + warpgroup * 8 * kGradPlane, 8 * 16, kGradPlane, Swizzle::kNone);
    const uint64_t images = matrix_descriptor(planes + kWeightFilters / 8 * kGradPlane, 8 * 16,
                                              kImagePlane, Swizzle::kNone);
    const int products = WeightStep(a, u.begin + step).products();
    // A fence to each: with one ahead of the loop ptxas adds its own, and products wait for one
    // another.
    for (int k = 0; k < products; ++k) {
      hold_all();
      begin_products();
      const bool more = step > 0 || k > 0;
      const uint64_t of_grads = advanced(grads, k * 16 * 16);
#pragma unroll
      for (int s = 0; s < 3; ++s)
        multiply<T, kColumns, true, true>(sums[s], of_grads, advanced(images, (k * 16 + s) * 16),
                                          more);
      if constexpr (kBias) multiply<T, 8, false, true>(bias, of_grads, ones, more);
      commit_products();
    }
    // All but this step's last: of each step there is one at least.
    wait_for_products<1>();
    release();
    read = ring.empty + ring.at;
    ring.next();
  }
  wait_for_products<0>();
  hold_all();
  release();
}

// sums: of multiply(). weight: of the unit's filter, row and channel, at the thread's own.
template <typename Out, int kColumns>
__device__ inline void write_weight(const float (&sums)[3][kColumns / 2], int64_t channels,
                                    Out* weight) {
#pragma unroll
  for (int s = 0; s < 3; ++s) {
#pragma unroll
    for (int down = 0; down < 2; ++down) {
      Out* const to = weight + (down * 8 * kTaps + s) * channels;
#pragma unroll
      for (int j = 0; j < kColumns / 8; ++j) {
        const float pair[] = {sums[s][j * 4 + down * 2], sums[s][j * 4 + down * 2 + 1]};
        store(pair, to + j * 8);
      }
    }
  }
}

// Where results are float32 that is what is stored, else what the operands are.
template <typename T, typename Write>
__device__ inline void as_stored(void* p, bool wide, const Write& write) {
  if (wide) {
    write(static_cast<float*>(p));
  } else {
    write(static_cast<T*>(p));
  }
}

template <typename T, int kColumns>
__device__ inline void write_sums(const HopperWeightArguments& a, const WeightUnit& u,
                                  int warpgroup, const float (&sums)[3][kColumns / 2],
                                  const float (&bias)[4], bool with_bias) {
  const HopperWeightCall& call = a.p.call[u.call];
  const bool direct = a.splits == 1;
  float* const partial = direct ? nullptr : call.workspace + u.split * a.elements;
  const int lane = threadIdx.x % 32;
  const int64_t filter = int64_t{u.layer} * a.p.filters + u.filter + warpgroup * 64 +
                         threadIdx.x / 32 % 4 * 16 + lane / 4;
  if (call.weight) {
    const int64_t channels = a.p.channels;
    const int64_t at = (filter * kTaps + u.row * 3) * channels + u.channel + lane % 4 * 2;
    as_stored<T>(direct ? call.weight : partial, !direct || a.p.weight_dtype == Dtype::kFloat32,
                 [&](auto* to) {
                   write_weight<std::decay_t<decltype(*to)>, kColumns>(sums, channels, to + at);
                 });
  }
  if (!with_bias || lane % 4 != 0) return;
  as_stored<T>(direct ? call.bias : partial + a.of_weight,
               !direct || a.p.bias_dtype == Dtype::kFloat32, [&](auto* to) {
                 using Out = std::decay_t<decltype(*to)>;
                 to[filter] = rounded<Out>(bias[0]);
                 to[filter + 8] = rounded<Out>(bias[2]);
               });
}

template <typename T, int kColumns>
__device__ inline void multiply_and_write(const HopperWeightArguments& a, Ring ring,
                                          uint64_t ones) {
  const int warpgroup = threadIdx.x / kWarpgroup - 1;
  for (int i = static_cast<int>(blockIdx.x); i < a.units; i += static_cast<int>(gridDim.x)) {
    const WeightUnit u(a, i);
    if (warpgroup >= u.warpgroups(a)) {
      for (int step = 0; step < a.p.each; ++step, ring.next()) {
        ring.wait_until_full();
        if (threadIdx.x % 32 == 0) arrive(ring.empty + ring.at);
      }
      continue;
    }
    // Every row of taps and all channels have the same: the first ones sum it.
    const bool with_bias = a.p.call[u.call].bias && u.row == 0 && u.channel == 0;
    float sums[3][kColumns / 2], bias[4];
    if (with_bias) {
      multiply_steps<T, kColumns, true>(a, u, ring, ones, warpgroup, sums, bias);
    } else {
      multiply_steps<T, kColumns, false>(a, u, ring, ones, warpgroup, sums, bias);
    }
    write_sums<T, kColumns>(a, u, warpgroup, sums, bias, with_bias);
  }
}

template <typename T, int kColumns>
__global__ void __launch_bounds__(kHopperThreads, 1)
    reflect_conv2d_hopper_weight_kernel(const __grid_constant__ HopperWeightArguments a) {
  CYCLEGAN_FAST_SHARED(unsigned char, memory);
  constexpr int kSlot = kWeightSlot<kColumns>;
  unsigned char* const ones = memory + kWeightSlots * kSlot;
  const Ring ring(memory, reinterpret_cast<uint64_t*>(ones + kWeightOnes), kSlot, kWeightSlots);
  if (threadIdx.x == 0) {
    ring.make(32, kHopperWarps);
    publish_barriers();
  }
  if (threadIdx.x < kWeightOnes / 16) {
    Vector<T, kWidest<T>> one;
#pragma unroll
    for (T& lane : one.lane) lane = rounded<T>(1);
    store_16_bytes(one, reinterpret_cast<T*>(ones) + threadIdx.x * kWidest<T>);
    publish_to_products();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    give_up_registers<kWeightLoader>();
    load_steps<T, kColumns>(a, ring);
  } else {
    take_registers<kWeightMultiplier>();
    multiply_and_write<T, kColumns>(
        a, ring, matrix_descriptor(shared_address(ones), 8 * 16, 8 * 16, Swizzle::kNone));
  }
}

constexpr int kSumThreads = 256, kSumVector = 4, kSumLoads = 8;

// Adds the splits' sums, in their order, four neighbours to a thread; several loads are under way.
template <typename T>
__global__ void __launch_bounds__(kSumThreads)
    reflect_conv2d_hopper_sum_kernel(const __grid_constant__ HopperWeightArguments a) {
  const HopperWeightCall& call = a.p.call[blockIdx.y];
  const int64_t at = (int64_t{blockIdx.x} * kSumThreads + threadIdx.x) * kSumVector;
  if (at >= a.elements) return;
  float total[kSumVector] = {};
  for (int first = 0; first < a.splits; first += kSumLoads) {
    Vector<float, kSumVector> loaded[kSumLoads];
#pragma unroll
    for (int i = 0; i < kSumLoads; ++i) {
      const int split = min(first + i, a.splits - 1);
      loaded[i] = load_vector<float, kSumVector>(call.workspace + split * a.elements + at);
    }
#pragma unroll
    for (int i = 0; i < kSumLoads; ++i)
#pragma unroll
      for (int k = 0; k < kSumVector; ++k) total[k] += first + i < a.splits ? loaded[i].lane[k] : 0;
  }
  const bool bias = at >= a.of_weight;
  const Dtype dtype = bias ? a.p.bias_dtype : a.p.weight_dtype;
  as_stored<T>(bias ? call.bias : call.weight, dtype == Dtype::kFloat32,
               [&](auto* to) { store(total, to + (bias ? at - a.of_weight : at)); });
}

template <typename T, int kColumns>
cudaError_t run(const HopperWeightArguments& a, cudaStream_t stream) {
  const auto kernel = reflect_conv2d_hopper_weight_kernel<T, kColumns>;
  constexpr int kShared = kWeightShared<kColumns>;
  int blocks = 0;
  if (const cudaError_t error = multiprocessors(&blocks)) return error;
  if (const cudaError_t error = allow_shared(kernel, kShared)) return error;
  if (const cudaError_t error =
          launch(kernel, static_cast<unsigned>(a.units < blocks ? a.units : blocks), kHopperThreads,
                 kShared, stream, a))
    return error;
  if (a.splits == 1) return cudaSuccess;
  const int64_t of_block = kSumThreads * kSumVector;
  const auto sums = static_cast<unsigned>((a.elements + of_block - 1) / of_block);
  return launch(reflect_conv2d_hopper_sum_kernel<T>, dim3(sums, static_cast<unsigned>(a.p.calls)),
                kSumThreads, 0, stream, a);
}

}  // namespace

cudaError_t reflect_conv2d_hopper_weight(const HopperWeightParams& p, cudaStream_t stream) {
  HopperWeightArguments a = {.p = p};
  a.of_weight = p.weight_elements();
  a.elements = p.elements();
  if (a.elements == 0) return cudaSuccess;
  a.steps = static_cast<int>(p.steps());
  a.splits = static_cast<int>(p.splits());
  a.rows = p.call[0].weight ? 3 : 1;
  a.channel_tiles = p.call[0].weight ? p.channels / p.columns : 1;
  a.filter_tiles = (p.filters + kWeightFilters - 1) / kWeightFilters;
  const int64_t units = p.calls * p.groups * p.splits() * a.rows * a.filter_tiles * a.channel_tiles;
  if (units * p.each >= int64_t{1} << 31) return cudaErrorInvalidConfiguration;
  a.units = static_cast<int>(units);
  a.across = Divider(static_cast<uint32_t>(p.across()));
  a.height = Divider(static_cast<uint32_t>(p.height - 2));
  const auto run_type = [&](auto tag) {
    using T = typename decltype(tag)::type;
    return p.columns == 64 ? run<T, 64>(a, stream) : run<T, 128>(a, stream);
  };
  return p.dtype == Dtype::kFloat16 ? run_type(TypeTag<half>{}) : run_type(TypeTag<bfloat16>{});
}

}  // namespace cyclegan_fast
