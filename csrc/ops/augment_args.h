// SPDX-License-Identifier: MIT
// augment: tensors checked and turned into params, for the CPU and the CUDA side alike. What the
// table and the taps say is not read here: cyclegan_fast.ops.PackedPictures made them.
#pragma once

#include "common/check.h"
#include "ops/augment.h"

namespace cyclegan_fast {

inline AugmentParams augment_args(const Tensor& levels, const Tensor& table, const Tensor& taps,
                                  const Tensor& picks, const Tensor& out) {
  const Checker check("augment_fwd", out);
  const Dtype dtype = check.dtype("out", out);
  const Layout layout = check.layout("out", out);
  const auto sizes = out.sizes();
  const int64_t n = sizes[0], c = sizes[1], h = sizes[2], w = sizes[3];
  if (c * h * w >= int64_t{1} << 31)
    check.fail("out", "of fewer than 2^31 values per picture", list_text(sizes));
  if (table.dim() != 2 || table.sizes()[0] < 1)
    check.fail("table", "of shape [P, 7], P at least 1", list_text(table.sizes()));
  const int64_t pictures = table.sizes()[0];
  check.whole_contiguous("levels", levels, {levels.numel()}, ScalarType::Byte);
  check.whole_contiguous("table", table, {pictures, kAugmentColumns}, ScalarType::Long);
  check.whole_contiguous("taps", taps, {taps.numel()}, ScalarType::Int);
  check.whole_contiguous("picks", picks, {n, 4}, ScalarType::Long);
  return {.dtype = dtype,
          .channels_last = layout == Layout::kChannelsLast,
          .n = n,
          .c = c,
          .h = h,
          .w = w,
          .pictures = pictures,
          .levels = static_cast<const uint8_t*>(data(levels)),
          .table = static_cast<const int64_t*>(data(table)),
          .taps = static_cast<const int32_t*>(data(taps)),
          .picks = static_cast<const int64_t*>(data(picks)),
          .out = mutable_data(out)};
}

}  // namespace cyclegan_fast
