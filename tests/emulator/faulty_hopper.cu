// SPDX-License-Identifier: MIT
// Kernels that use Hopper's instructions in ways that the emulator must notice, and one that is
// right: a warpgroup multiplies the 64 x 16 ones that it has written by 16 x 64.
#include "common/hopper.cuh"
#include "common/launch.cuh"

namespace cyclegan_fast {
namespace {

enum class Fault {
  kNone,
  kUnpublished,    // arrives before products can see what it has written
  kNotBegun,       // multiplies although its sums may still be touched
  kNotWaited,      // reads sums that are not there yet
  kNobodyComes,    // waits for a phase that does not end
  kWithinPattern,  // a descriptor whose pattern begins in the middle of one
  kBeyond,         // an operand that ends behind shared memory
};

constexpr int kBytes = 64 * 16 * 2;

template <Fault kFault>
__global__ void product_kernel(float* result) {
  CYCLEGAN_FAST_SHARED(unsigned char, raw);
  auto* const barrier = reinterpret_cast<uint64_t*>(raw);
  auto* const operand = reinterpret_cast<half*>(raw + 16);
  if (threadIdx.x == 0) {
    make_barrier(barrier, kFault == Fault::kNobodyComes ? 129 : 128);
    publish_barriers();
  }
  __syncthreads();
  Vector<half, 8> ones;
  for (half& one : ones.lane) one = __float2half(1.0f);
  store_16_bytes(ones, operand + threadIdx.x * 8);
  if (kFault != Fault::kUnpublished) publish_to_products();
  arrive(barrier);
  wait(barrier, 0);
  float sums[32];
  for (float& sum : sums) sum = -1;
  const uint32_t start = shared_address(operand) + (kFault == Fault::kBeyond          ? 256
                                                    : kFault == Fault::kWithinPattern ? 128
                                                                                      : 0);
  const uint64_t of =
      matrix_descriptor(start, 64 * 16, 8 * 16,
                        kFault == Fault::kWithinPattern ? Swizzle::k128Bytes : Swizzle::kNone);
  if (kFault != Fault::kNotBegun) begin_products();
  multiply<half, 64, false>(sums, of, of, false);
  commit_products();
  if (kFault != Fault::kNotWaited) wait_for_products<0>();
  result[threadIdx.x] = sums[threadIdx.x % 32];
}

template <Fault kFault>
cudaError_t start(float* values) {
  return launch(product_kernel<kFault>, 1, 128, 16 + kBytes, nullptr, values);
}

}  // namespace

extern "C" {
cudaError_t right(float* v) { return start<Fault::kNone>(v); }
cudaError_t unpublished(float* v) { return start<Fault::kUnpublished>(v); }
cudaError_t not_begun(float* v) { return start<Fault::kNotBegun>(v); }
cudaError_t not_waited(float* v) { return start<Fault::kNotWaited>(v); }
cudaError_t nobody_comes(float* v) { return start<Fault::kNobodyComes>(v); }
cudaError_t within_pattern(float* v) { return start<Fault::kWithinPattern>(v); }
cudaError_t beyond(float* v) { return start<Fault::kBeyond>(v); }
}

}  // namespace cyclegan_fast
