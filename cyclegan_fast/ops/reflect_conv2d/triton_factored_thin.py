# SPDX-License-Identifier: MIT
"""Convolutions from many channels to few in Triton: taps and results are columns of one product.

The taps of a kernel's row and the few results lie side by side, so that no column is nothing:

    t[i, v, (s, o)] = sum over r, c of x[i + r, v, c] weight[o, c, r, s]
    y[i, j, o] = sum over s of t[i, j + s, (s, o)]

The sums over s are taken of finished rows of t, each column shifted by its s. Forward x is the
image, reflected while loading. Backward it is the gradient of a result of many channels, zero
outside, and the kernel is turned.

Where the products run beside the program and read what they multiply from shared memory (sm_90),
t is rolled: the kernel stays there, KH rows of t are in registers at once, and a row of x, read
once, feeds all of them. Elsewhere the kernel would take the registers too: each row of t reads its
KH rows of x.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call, reflected, tanh
from cyclegan_fast.ops.reflect_conv2d.triton_bwd import _image, _touches
from cyclegan_fast.ops.reflect_conv2d.triton_load import derivative


@triton.jit
def reflect_conv2d_factored_sum_kernel(
    x_ptr,  # [N, channels, height, width], either dense layout; all pairs: of the two calls
    other_x_ptr,
    act_ptr,  # like x, the result whose gradient it is, if DERIVATIVE
    other_act_ptr,
    weight_ptr,  # [THIN, channels, KH, KW], or turned [channels, THIN, KH, KW], dense
    other_weight_ptr,
    bias_ptr,  # [THIN] or None
    other_bias_ptr,
    y_ptr,  # [N, THIN, out_height, out_width], channels side by side
    other_y_ptr,
    channels,
    height,
    width,
    out_height,
    out_width,
    x_stride_p,  # from pixel to pixel
    x_stride_c,
    weight_stride_many,  # from one of the many channels to the next
    weight_stride_few,
    weight_stride_t,  # from tap to tap
    rows,  # of y in a tile
    TANH: tl.constexpr,
    TURNED: tl.constexpr,  # the gradient of an image: y is it, and x is what it is taken of
    DERIVATIVE: tl.constexpr,
    THIN: tl.constexpr,
    PAD: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    ROLLED: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,  # channels summed over at once, all if ROLLED
    TAPS: tl.constexpr,  # at least KW
    SLOTS: tl.constexpr,  # at least THIN
):
    """Some columns of some rows of y; BLOCK_W columns of x give KW - 1 fewer of y."""
    valid = BLOCK_W - (KW - 1)
    across, down = tl.cdiv(out_width, valid), tl.cdiv(out_height, rows)
    pid = tl.program_id(0)
    n = (pid // (across * down)).to(tl.int64)
    top, left = pid // across % down * rows, pid % across * valid
    x_ptr = of_call(x_ptr, other_x_ptr) + n * channels * height * width
    act_ptr = of_call(act_ptr, other_act_ptr) + n * channels * height * width
    weight_ptr = of_call(weight_ptr, other_weight_ptr)
    y_ptr = of_call(y_ptr, other_y_ptr) + n * THIN * out_height * out_width
    lane = tl.arange(0, BLOCK_W)
    column = tl.arange(0, TAPS * SLOTS)
    tap, few = column // SLOTS, column % SLOTS
    known = (tap < KW) & (few < THIN)
    shifted = tl.minimum(lane[:, None] + tap[None, :], BLOCK_W - 1)
    offs_c, offs_o = tl.arange(0, BLOCK_C), tl.arange(0, SLOTS)
    zero = tl.zeros((BLOCK_W, TAPS * SLOTS), tl.float32)
    w = left + lane
    # A padded image's gradient is folded in passes, each of which adds what the mirror images on
    # one side show, in those tiles that have any.
    for image in range(9 if TURNED and PAD > 0 else 1):
        side_h, side_w = image // 3, image % 3
        # Padded columns, and the weights of the kernel's last row as it meets rows of x in order.
        if TURNED:
            any_h = _touches(side_h, top, rows, out_height, PAD)
            any_w = _touches(side_w, left, valid, out_width, PAD)
            steps = tl.where(any_h & any_w, rows + KH - 1, 0)
            mask_w = (lane < valid) & (w < out_width) & _image(side_w, w, out_width, PAD)[1]
            v, seen = _shown(side_w, w, out_width, width, PAD, KW)
            row, way = tl.where(side_h == 0, 0, KH - 1), tl.where(side_h == 0, KW, -KW)
            at = row * KW + tl.where(side_w == 0, KW - 1 - tap, tap)
        else:
            steps, way = rows + KH - 1, -KW
            mask_w = (lane < valid) & (w < out_width)
            v, seen = reflected(w, PAD, width), w < out_width + KW - 1
            at = (KH - 1) * KW + tap
        filters_ptr = weight_ptr + few * weight_stride_few + at * weight_stride_t
        way = way * weight_stride_t
        pixels_ptr = x_ptr + v.to(tl.int64) * x_stride_p
        acts_ptr = act_ptr + v.to(tl.int64) * x_stride_p
        if ROLLED:
            filters = _filters(filters_ptr, way, known, offs_c, channels, weight_stride_many, KH)
            rolling = _begun(zero, KH)
        for q in range(top if ROLLED else top + KH - 1, top + steps):
            if ROLLED:
                x = _row(
                    pixels_ptr,
                    acts_ptr,
                    q,
                    side_h,
                    seen,
                    offs_c,
                    channels,
                    height,
                    width,
                    out_height,
                    x_stride_p,
                    x_stride_c,
                    TURNED,
                    DERIVATIVE,
                    PAD,
                    KH,
                )
                done, rolling = _rolled(x, filters, rolling, KH, PRECISION)
            else:
                done = zero
                blocks = tl.cdiv(channels, BLOCK_C)
                for step in range(KH * blocks):
                    r, channel = step // blocks, step % blocks * BLOCK_C + offs_c
                    x = _row(
                        pixels_ptr,
                        acts_ptr,
                        q - r,
                        side_h,
                        seen,
                        channel,
                        channels,
                        height,
                        width,
                        out_height,
                        x_stride_p,
                        x_stride_c,
                        TURNED,
                        DERIVATIVE,
                        PAD,
                        KH,
                    )
                    filter = _filter(
                        filters_ptr + r * way, known, channel, channels, weight_stride_many
                    )
                    done = tl.dot(x, filter, done, input_precision=PRECISION)
            # A tap that is not there has sums of 0 * x, which is nan for some x.
            done = tl.where((tap < KW)[None, :], tl.gather(done, shifted, 0), 0)
            value = tl.sum(tl.reshape(done, (BLOCK_W, TAPS, SLOTS)), 1)
            i = q - (KH - 1)
            mask = mask_w[:, None] & (offs_o < THIN)[None, :] & (i >= top) & (i < out_height)
            target = (i.to(tl.int64) * out_width + w)[:, None] * THIN + offs_o[None, :]
            if TURNED and PAD > 0:
                mask = mask & _image(side_h, i, out_height, PAD)[1]
                before = tl.load(y_ptr + target, mask=mask & (image > 0), other=0)
                value += before.to(tl.float32)
            if bias_ptr is not None:
                bias_of = of_call(bias_ptr, other_bias_ptr) + offs_o
                value += tl.load(bias_of, mask=offs_o < THIN, other=0).to(tl.float32)[None, :]
            if TANH:
                value = tanh(value, tl.float32)
            tl.store(y_ptr + target, value, mask=mask)
        if TURNED and PAD > 0:
            tl.debug_barrier()  # what a thread has written another may add to in the next pass


@triton.jit
def _row(
    pixels_ptr,  # [BLOCK_W] of row 0
    acts_ptr,
    q,  # row of the padded image, or what `_shown` takes
    side,
    seen,  # [BLOCK_W]
    channel,  # [BLOCK_C]
    channels,
    height,
    width,
    out_height,
    stride_p,
    stride_c,
    TURNED: tl.constexpr,
    DERIVATIVE: tl.constexpr,
    PAD: tl.constexpr,
    KH: tl.constexpr,
):
    """Pixels of a row, [BLOCK_W, BLOCK_C]."""
    if TURNED:
        h, there = _shown(side, q, out_height, height, PAD, KH)
    else:
        h, there = reflected(q, PAD, height), q < out_height + KH - 1
    offs_h = h.to(tl.int64) * width * stride_p
    source = offs_h + (channel.to(tl.int64) * stride_c)[None, :]
    mask = (seen & there)[:, None] & (channel < channels)[None, :]
    return derivative(pixels_ptr[:, None], acts_ptr[:, None], source, mask, DERIVATIVE)


@triton.jit
def _filter(filter_ptr, known, channel, channels, stride):
    """Weights of one of the kernel's rows, [BLOCK_C, TAPS * SLOTS]."""
    source = (channel.to(tl.int64) * stride)[:, None]
    mask = (channel < channels)[:, None] & known[None, :]
    return tl.load(filter_ptr[None, :] + source, mask=mask, other=0)


# Numbers of tensors are compiled for, here too: these grow tuples, which a checker of types refuses
# in functions that have any annotation.
@triton.jit
def _filters(filter_ptr, way, known, channel, channels, stride, KH):
    """Weights of all rows of the kernel, the last first."""
    filters = ()
    for r in tl.static_range(KH):
        filters = filters + (_filter(filter_ptr + r * way, known, channel, channels, stride),)
    return filters


@triton.jit
def _begun(zero, KH):
    """KH - 1 rows of t that nothing has been added to."""
    rolling = ()
    for _r in tl.static_range(KH - 1):
        rolling = rolling + (zero,)
    return rolling


@triton.jit
def _rolled(x, filters, rolling, KH, PRECISION):
    """The row of t that a row of x finishes, and those that it leaves, the oldest first.

    In this order, for what is finished first frees its registers first.
    """
    done = tl.dot(x, filters[0], rolling[0], input_precision=PRECISION)
    left = ()
    for r in tl.static_range(1, KH - 1):
        left = left + (tl.dot(x, filters[r], rolling[r], input_precision=PRECISION),)
    return done, left + (tl.dot(x, filters[KH - 1], input_precision=PRECISION),)


@triton.jit
def _shown(side, q, size, out_size, PAD: tl.constexpr, TAPS: tl.constexpr):
    """Row of a gradient that rows from q - (TAPS - 1) to q of its image gather, and if it is there.

    Row i's own padded position p has been read by rows p - (TAPS - 1) to p. Of an image on a side,
    p falls with i, and so do the rows.
    """
    row = tl.where(
        side == 0, q + PAD - (TAPS - 1), tl.where(side == 1, PAD, 2 * size - 2 + PAD) - q
    )
    return row, (row >= 0) & (row < out_size)
