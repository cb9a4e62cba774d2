// SPDX-License-Identifier: MIT
#pragma once

#include "common/isa.h"
#include "ops/instance_norm_act.h"

namespace cyclegan_fast {

template <class Params>
using InstanceNormActKernel = void (*)(const Params& params, int64_t begin, int64_t end);

// Contiguous: a task is a plane, start to end.
struct InstanceNormActNchwKernels {
  InstanceNormActKernel<InstanceNormActFwdParams> fwd;
  InstanceNormActKernel<InstanceNormActBwdParams> bwd;
};

// channels_last: all channels of a row lie together, so the statistics of a plane are spread over
// the whole image. Bands of rows leave partial results in the workspace (a task: one band of one
// image), which are merged (a task: kChannelGroup channels of one image) before rows are written (a
// task: one unpadded row of one image, with its mirror images).
struct InstanceNormActNhwcFwdKernels {
  InstanceNormActKernel<InstanceNormActFwdParams> statistics, merge, write;
};
struct InstanceNormActNhwcBwdKernels {
  InstanceNormActKernel<InstanceNormActBwdParams> sums, merge, write;
};

constexpr int64_t kChannelGroup = 64;

CYCLEGAN_FAST_DECLARE_KERNELS(InstanceNormActNchwKernels, instance_norm_act_nchw)
CYCLEGAN_FAST_DECLARE_KERNELS(InstanceNormActNhwcFwdKernels, instance_norm_act_nhwc_fwd)
CYCLEGAN_FAST_DECLARE_KERNELS(InstanceNormActNhwcBwdKernels, instance_norm_act_nhwc_bwd)

}  // namespace cyclegan_fast
