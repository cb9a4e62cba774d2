// SPDX-License-Identifier: MIT
// Argument checks shared by the CPU and the CUDA side of an op. Every message reads
// "cyclegan_fast_C::op: argument must be EXPECTED, got VALUE".
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "common/dtype.h"
#include "common/torch_stable.h"

namespace cyclegan_fast {

using Shape = std::vector<int64_t>;

// Numbers by std::to_string rather than a stream: a stream's digits go through the C++ library's
// locale, and crash where the process holds another copy of that library than this one's.
inline std::string text_of(const std::string& part) { return part; }
inline std::string text_of(int64_t part) { return std::to_string(part); }
inline std::string text_of(int part) { return std::to_string(part); }

// Builds text from words and whole numbers; called only once a check has failed.
template <class... Parts>
std::string text(const Parts&... parts) {
  return (text_of(parts) + ...);
}

template <class Range>
std::string list_text(const Range& values) {
  std::string result;
  for (const auto& value : values) {
    if (!result.empty()) result += ", ";
    result += text_of(static_cast<int64_t>(value));
  }
  return "[" + result + "]";
}

inline const char* name(Dtype dtype) {
  constexpr const char* kNames[] = {"float16", "bfloat16", "float32", "float64"};
  return kNames[static_cast<int>(dtype)];
}

inline const char* name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    default:
      return torch::headeronly::toString(dtype);
  }
}

// Statistics, sums and losses: float64 for float64, float32 for the rest.
inline Dtype accumulator(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
}

// A dense 4-D tensor is read as NCHW or as NHWC; where both hold, either reading is right.
enum class Layout { kContiguous, kChannelsLast };

inline const char* name(Layout layout) {
  return layout == Layout::kContiguous ? "contiguous" : "channels_last";
}

class Checker {
 public:
  Checker(const char* op, const Tensor& first) : op_(op), first_(first) {}

  [[noreturn]] void fail(const char* argument, const std::string& expected,
                         const std::string& got) const {
    throw std::runtime_error(
        text("cyclegan_fast_C::", op_, ": ", argument, " must be ", expected, ", got ", got));
  }

  // Dtype of a floating-point tensor; fails for any other.
  Dtype dtype(const char* argument, const Tensor& x) const {
    switch (x.scalar_type()) {
      case ScalarType::Half:
        return Dtype::kFloat16;
      case ScalarType::BFloat16:
        return Dtype::kBFloat16;
      case ScalarType::Float:
        return Dtype::kFloat32;
      case ScalarType::Double:
        return Dtype::kFloat64;
      default:
        fail(argument, "float16, bfloat16, float32 or float64",
             torch::headeronly::toString(x.scalar_type()));
    }
  }

  // Shape, dtype and the first tensor's device; strides are not looked at.
  void like(const char* argument, const Tensor& x, const Shape& shape, Dtype expected) const {
    place(argument, x, shape);
    if (const Dtype got = dtype(argument, x); got != expected)
      fail(argument, text("of dtype ", name(expected)), name(got));
  }

  // A dtype of whole numbers, shape and the first tensor's device; strides are not looked at.
  void whole(const char* argument, const Tensor& x, const Shape& shape, ScalarType expected) const {
    if (x.scalar_type() != expected)
      fail(argument, text("of dtype ", name(expected)),
           torch::headeronly::toString(x.scalar_type()));
    place(argument, x, shape);
  }

  // Like the above, and dense in memory order.
  void whole_contiguous(const char* argument, const Tensor& x, const Shape& shape,
                        ScalarType expected) const {
    whole(argument, x, shape, expected);
    in_memory_order(argument, x);
  }

  // Shape and the first tensor's device.
  void place(const char* argument, const Tensor& x, const Shape& shape) const {
    const auto sizes = x.sizes();
    bool same = sizes.size() == shape.size();
    for (size_t i = 0; same && i < shape.size(); ++i) same = sizes[i] == shape[i];
    if (!same) fail(argument, "of shape " + list_text(shape), list_text(sizes));
    if (x.device() != first_.device())
      fail(argument, "on the device of the first tensor", device_text(x));
  }

  // Like the above, and dense in memory order.
  void contiguous(const char* argument, const Tensor& x, const Shape& shape, Dtype expected) const {
    like(argument, x, shape, expected);
    in_memory_order(argument, x);
  }

  // Like the above, for an image that must have a given layout.
  void image(const char* argument, const Tensor& x, const Shape& shape, Dtype expected,
             Layout layout) const {
    like(argument, x, shape, expected);
    if (!has_layout(x, layout))
      fail(argument, text(name(layout), " as the first tensor"),
           "strides " + list_text(x.strides()));
  }

  // At least so many elements in one stretch.
  void workspace(const char* argument, const Tensor& x, int64_t elements, Dtype expected) const {
    if (const Dtype got = dtype(argument, x); got != expected)
      fail(argument, text("of dtype ", name(expected)), name(got));
    if (x.device() != first_.device())
      fail(argument, "on the device of the first tensor", device_text(x));
    if (x.numel() < elements || !x.is_contiguous())
      fail(argument, text("contiguous with at least ", elements, " elements"),
           text(x.numel(), " elements, strides ", list_text(x.strides())));
  }

  void four_dimensions(const char* argument, const Tensor& x) const {
    if (x.dim() != 4) fail(argument, "of shape [N, C, H, W]", list_text(x.sizes()));
  }

  // The layout of a 4-D image; fails if it is dense in neither.
  Layout layout(const char* argument, const Tensor& x) const {
    four_dimensions(argument, x);
    if (has_layout(x, Layout::kContiguous)) return Layout::kContiguous;
    if (!has_layout(x, Layout::kChannelsLast))
      fail(argument, "contiguous or channels_last", "strides " + list_text(x.strides()));
    return Layout::kChannelsLast;
  }

  void pad(int64_t pad, int64_t h, int64_t w) const {
    const int64_t limit = h < w ? h : w;
    if (pad < 0 || (pad > 0 && pad >= limit))
      fail("pad", text("at least 0 and less than min(H, W) = ", limit), text(pad));
  }

  static bool has_layout(const Tensor& x, Layout layout) {
    constexpr int kOrder[2][4] = {{3, 2, 1, 0}, {1, 3, 2, 0}};  // fastest dimension first
    const auto sizes = x.sizes(), strides = x.strides();
    int64_t expected = 1;
    for (const int d : kOrder[static_cast<int>(layout)]) {
      if (sizes[d] != 1 && strides[d] != expected) return x.numel() == 0;
      expected *= sizes[d];
    }
    return true;
  }

 private:
  void in_memory_order(const char* argument, const Tensor& x) const {
    if (!x.is_contiguous()) fail(argument, "contiguous", "strides " + list_text(x.strides()));
  }

  static std::string device_text(const Tensor& x) {
    const auto device = x.device();
    const char* type = x.is_cpu() ? "cpu" : x.is_cuda() ? "cuda" : "device";
    return x.is_cpu() ? type : text(type, ":", static_cast<int>(device.index()));
  }

  const char* op_;
  const Tensor& first_;
};

}  // namespace cyclegan_fast
