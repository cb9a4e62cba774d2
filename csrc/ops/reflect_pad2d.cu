// SPDX-License-Identifier: MIT
// reflect_pad2d: every output collects its inputs, so nothing is zeroed, nothing is added twice.
#include "common/dispatch.cuh"
#include "common/fold.cuh"
#include "common/launch.cuh"
#include "ops/reflect_pad2d_cuda.h"

namespace cyclegan_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // independent outputs per thread

// Rows of `pixels` pixels of `vectors` vectors each; a contiguous tensor is N * C images of one
// channel. Blocks take blockDim.y rows of the output.
struct Rows {
  Divider vectors_divider, rows_divider;
  int height, width, pad, vectors;
  int out_rows, out_row;  // rows per image, vectors per row
  int64_t count;          // rows of all images

  Rows(const ReflectPad2dParams& p, int vector_width, int64_t out_height, int64_t out_width)
      : height(static_cast<int>(p.h)),
        width(static_cast<int>(p.w)),
        pad(static_cast<int>(p.pad)),
        vectors(static_cast<int>(p.channels_last ? p.c / vector_width : 1)),
        out_rows(static_cast<int>(out_height)),
        out_row(static_cast<int>(out_width * vectors)),
        count((p.channels_last ? p.n : p.n * p.c) * out_height) {
    vectors_divider = Divider(vectors);
    rows_divider = Divider(out_rows);
  }
  dim3 threads() const {
    unsigned x = 32;
    while (x < kThreads && x * kUnroll < static_cast<unsigned>(out_row)) x *= 2;
    return dim3(x, kThreads / x);
  }
  dim3 blocks() const {
    const dim3 block = threads();
    const int64_t y = (out_row - 1) / static_cast<int64_t>(block.x * kUnroll) + 1;
    return dim3(static_cast<unsigned>((count + block.y - 1) / block.y),
                static_cast<unsigned>(y < 1024 ? y : 1024));
  }
};

// This thread's row.
struct Row {
  int64_t row, image;
  int h;
  bool active;

  __device__ explicit Row(const Rows& rows)
      : row(static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y), active(row < rows.count) {
    const unsigned q = rows.rows_divider.quotient(static_cast<uint32_t>(row));
    image = q;
    h = static_cast<int>(static_cast<uint32_t>(row) - q * rows.out_rows);
  }
};

// Calls body(first) with this thread's first output of each group of kUnroll, blockDim.x apart.
template <typename Body>
__device__ inline void for_each_group(const Rows& rows, const Body& body) {
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.x * kUnroll;
  for (int64_t first = static_cast<int64_t>(blockIdx.y) * blockDim.x * kUnroll + threadIdx.x;
       first < rows.out_row; first += step) {
    body(static_cast<int>(first));
  }
}

// Word: as many bits as are moved at once, whatever they mean.
template <typename Word>
__global__ void __launch_bounds__(kThreads)
    reflect_pad2d_fwd_kernel(const Rows rows, const Word* __restrict__ x, Word* __restrict__ y) {
  const Row at(rows);
  if (!at.active) return;
  const int from_h = reflected(at.h, rows.pad, rows.height);
  const Word* from = x + (at.image * rows.height + from_h) * rows.width * rows.vectors;
  Word* to = y + at.row * rows.out_row;
  for_each_group(rows, [&](int first) {
    Word word[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = first + u * static_cast<int>(blockDim.x);
      if (i >= rows.out_row) continue;
      const int w = static_cast<int>(rows.vectors_divider.quotient(i));
      word[u] = from[reflected(w, rows.pad, rows.width) * rows.vectors + (i - w * rows.vectors)];
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = first + u * static_cast<int>(blockDim.x);
      if (i < rows.out_row) to[i] = word[u];
    }
  });
}

// A thread makes one value of y, neighbours in memory by neighbours: a picture has few of them, and
// what they read lies anywhere.
template <typename To, typename From>
__global__ void __launch_bounds__(kThreads)
    reflect_pad2d_copy_kernel(const ReflectPad2dCopyParams p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t height = p.h + 2 * p.pad, width = p.w + 2 * p.pad;
  const int64_t values = p.c * height * width;
  if (at >= p.n * values) return;
  const int64_t n = at / values;
  // Of one image 32 bits count the values.
  const auto value = static_cast<uint32_t>(at - n * values);
  const auto pixels = static_cast<uint32_t>(height * width);
  const auto channels = static_cast<uint32_t>(p.c);
  const uint32_t pixel = p.channels_last ? value / channels : value % pixels;
  const int64_t c = p.channels_last ? value % channels : value / pixels;
  const auto across = static_cast<uint32_t>(width);
  const int64_t h =
      reflected(static_cast<int>(pixel / across), static_cast<int>(p.pad), static_cast<int>(p.h));
  const int64_t w =
      reflected(static_cast<int>(pixel % across), static_cast<int>(p.pad), static_cast<int>(p.w));
  const From from =
      static_cast<const From*>(p.x.data)[n * p.x.n + c * p.x.c + h * p.x.h + w * p.x.w];
  static_cast<To*>(p.y)[at] =
      rounded<To>(static_cast<Accumulator<To>>(static_cast<Accumulator<From>>(from)));
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    reflect_pad2d_bwd_kernel(const Rows rows, const T* __restrict__ grad_y,
                             T* __restrict__ grad_x) {
  using A = Accumulator<T>;
  const Row at(rows);
  if (!at.active) return;
  const int64_t pixel = static_cast<int64_t>(rows.vectors) * kWidth;
  const int64_t padded_row = (rows.width + 2 * rows.pad) * pixel;
  const T* padded = grad_y + at.image * (rows.height + 2 * rows.pad) * padded_row;
  T* to = grad_x + at.row * rows.out_row * kWidth;
  const Mirrors vertical = mirrors(at.h, rows.pad, rows.height);
  const T* own_row = padded + vertical.first * padded_row + rows.pad * pixel;
  for_each_group(rows, [&](int first) {
    Vector<T, kWidth> own[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = first + u * static_cast<int>(blockDim.x);
      if (i < rows.out_row) {
        own[u] = load_vector<T, kWidth>(own_row + static_cast<int64_t>(i) * kWidth);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int i = first + u * static_cast<int>(blockDim.x);
      if (i >= rows.out_row) continue;
      const int w = static_cast<int>(rows.vectors_divider.quotient(i));
      A sum[kWidth];
      unpack(own[u], sum);
      add_mirrors(padded + (i - w * rows.vectors) * kWidth, padded_row, pixel, vertical,
                  mirrors(w, rows.pad, rows.width), sum);
      store(sum, to + static_cast<int64_t>(i) * kWidth);
    }
  });
}

// Vectors of 16 bytes where they never straddle two pixels, else one element at a time.
int vector_width(const ReflectPad2dParams& p, int element_bytes) {
  const int widest = 16 / element_bytes;
  const bool wide = p.channels_last && p.c % widest == 0 && aligned(p.in, 16) && aligned(p.out, 16);
  return wide ? widest : 1;
}

bool fits(const Rows& rows, int64_t padded_row) {
  constexpr int64_t kLimit = int64_t{1} << 31;
  return rows.count < kLimit && padded_row < kLimit - 2 * kThreads * kUnroll;
}

template <typename Word>
cudaError_t copy(const ReflectPad2dParams& p, int width, cudaStream_t stream) {
  const int64_t padded_width = p.w + 2 * p.pad;
  const Rows rows(p, width, p.h + 2 * p.pad, padded_width);
  if (!fits(rows, padded_width * rows.vectors)) return cudaErrorInvalidConfiguration;
  return launch(reflect_pad2d_fwd_kernel<Word>, rows.blocks(), rows.threads(), 0, stream, rows,
                static_cast<const Word*>(p.in), static_cast<Word*>(p.out));
}

template <typename T, int kWidth>
cudaError_t fold(const ReflectPad2dParams& p, cudaStream_t stream) {
  const Rows rows(p, kWidth, p.h, p.w);
  if (!fits(rows, (p.w + 2 * p.pad) * rows.vectors)) return cudaErrorInvalidConfiguration;
  return launch(reflect_pad2d_bwd_kernel<T, kWidth>, rows.blocks(), rows.threads(), 0, stream, rows,
                static_cast<const T*>(p.in), static_cast<T*>(p.out));
}

}  // namespace

cudaError_t reflect_pad2d_fwd(const ReflectPad2dParams& p, cudaStream_t stream) {
  const int bytes = p.dtype == Dtype::kFloat64 ? 8 : p.dtype == Dtype::kFloat32 ? 4 : 2;
  const int width = vector_width(p, bytes);
  if (width > 1) return copy<uint4>(p, width, stream);
  if (bytes == 8) return copy<uint64_t>(p, 1, stream);
  return bytes == 4 ? copy<uint32_t>(p, 1, stream) : copy<uint16_t>(p, 1, stream);
}

cudaError_t reflect_pad2d_copy(const ReflectPad2dCopyParams& p, cudaStream_t stream) {
  const int64_t values = p.c * (p.h + 2 * p.pad) * (p.w + 2 * p.pad);
  const int64_t blocks = (p.n * values + kThreads - 1) / kThreads;
  constexpr int64_t kLimit = int64_t{1} << 31;
  if (values >= kLimit || blocks >= kLimit) return cudaErrorInvalidConfiguration;
  return with_type(p.from, [&](auto from) {
    return with_type(p.to, [&](auto to) {
      using From = typename decltype(from)::type;
      using To = typename decltype(to)::type;
      if constexpr ((sizeof(From) == sizeof(double)) == (sizeof(To) == sizeof(double))) {
        return launch(reflect_pad2d_copy_kernel<To, From>, static_cast<unsigned>(blocks), kThreads,
                      0, stream, p);
      } else {
        return cudaErrorInvalidConfiguration;  // refused before
      }
    });
  });
}

cudaError_t reflect_pad2d_bwd(const ReflectPad2dParams& p, cudaStream_t stream) {
  return with_type(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return vector_width(p, sizeof(T)) > 1 ? fold<T, kWidest<T>>(p, stream) : fold<T, 1>(p, stream);
  });
}

}  // namespace cyclegan_fast
