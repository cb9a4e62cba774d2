// SPDX-License-Identifier: MIT
// instance_norm_act on CUDA: the launches, one file of kernels per layout and direction.
//
// The image has at least one element and fewer than 2^30 pixels in a padded plane. Two launches at
// most; neither allocates nor synchronises. channels_last takes one call or two, whose sizes are
// the same. cudaErrorInvalidConfiguration: more blocks than a grid can have.
#pragma once

#include <driver_types.h>

#include "ops/instance_norm_act.h"

namespace cyclegan_fast {

cudaError_t instance_norm_act_fwd_nhwc(const InstanceNormActFwdParams* p, int count,
                                       cudaStream_t stream);
cudaError_t instance_norm_act_fwd_nchw(const InstanceNormActFwdParams& p, cudaStream_t stream);
cudaError_t instance_norm_act_bwd_nhwc(const InstanceNormActBwdParams* p, int count,
                                       cudaStream_t stream);
cudaError_t instance_norm_act_bwd_nchw(const InstanceNormActBwdParams& p, cudaStream_t stream);

}  // namespace cyclegan_fast
