# SPDX-License-Identifier: MIT
"""What goes around the library's products on the CPU: rows, and Winograd's transforms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from raw_calls import DTYPES, Guarded, assert_near, ops, placed

wide = torch.float64
B = torch.tensor([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]], dtype=wide)
G = torch.tensor([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], dtype=wide) / 2
A = torch.tensor([[1, 0], [1, 1], [1, -1], [0, -1]], dtype=wide)
# Both sides odd, windows cut off at both edges, less than a vector, one more, several; one window.
SHAPES = [(2, 3, 5, 7), (1, 17, 6, 4), (3, 33, 3, 3), (1, 16, 4, 9), (2, 70, 8, 6), (1, 1, 3, 3)]


def factors(image, of_result: bool):
    """What the kernel must make, in float64: [windows, 16, C]."""
    side, matrix = (2, A.T) if of_result else (4, B)
    n, c, h, w = image.shape
    beyond = side - 2
    # The last window of an odd side reaches over the edge, where all is zero.
    whole = F.pad(image.double(), (0, (w - beyond) % 2, 0, (h - beyond) % 2))
    windows = whole.unfold(2, side, 2).unfold(3, side, 2)
    made = torch.einsum("ki,ncyxkl,lj->nyxijc", matrix, windows, matrix)
    return made.reshape(-1, 16, c)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("of_result", [False, True])
def test_factors_equal_the_formula(shape, of_result):
    image = placed(torch.randn(shape) + 2, "channels_last")
    expected = factors(image, of_result)
    made = Guarded(expected.shape, torch.float32)
    ops.reflect_conv2d_winograd_factors(image, of_result, 0, made.tensor)
    assert_near(made.check("factors"), expected, "factors", terms=16)
    first, last = len(expected) // 3, len(expected) - len(expected) // 4
    some = Guarded((last - first, *expected.shape[1:]), torch.float32)
    ops.reflect_conv2d_winograd_factors(image, of_result, first, some.tensor)
    assert torch.equal(some.check("some"), made.tensor[first:last])


@pytest.mark.parametrize(("out_channels", "channels"), [(3, 5), (1, 16), (20, 33)])
def test_gathered_equal_the_formula(out_channels, channels):
    products = placed(torch.randn(16, out_channels, channels) + 1)
    made = Guarded((out_channels, channels, 3, 3), torch.float32, "channels_last")
    ops.reflect_conv2d_winograd_gather(products, made.tensor)
    squares = products.double().view(4, 4, out_channels, channels)
    expected = torch.einsum("ir,ijoc,js->ocrs", G, squares, G)
    assert_near(made.check("grad_weight"), expected, "grad_weight", terms=16)


def test_factors_have_the_same_bits_on_any_number_of_threads():
    image = placed(torch.randn(2, 70, 41, 33), "channels_last")
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            made = Guarded((2 * 20 * 16, 16, 70), torch.float32)
            ops.reflect_conv2d_winograd_factors(image, False, 0, made.tensor)
            results.append(made.check("factors"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


# One tap, one channel, an image lower than the kernel, rows no multiple of a vector.
THIN = [((2, 3, 6, 37), 7), ((1, 1, 1, 5), 3), ((1, 4, 9, 16), 1), ((3, 2, 2, 3), 5)]


def added(rows, c: int, taps: int, back: bool, height: int):
    """What sum_rows must make, in float64."""
    total = torch.zeros(len(rows), c, height, rows.shape[3], dtype=wide)
    for h in range(height):
        for t in range(taps):
            row = h - t if back else h + t
            if 0 <= row < rows.shape[2]:
                total[:, :, h] += rows[:, t * c : (t + 1) * c, row].double()
    return total


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("shape", "taps"), THIN, ids=str)
def test_sums_of_rows_equal_the_formula(shape, taps, back, dtype):
    n, c, h, w = shape
    height = max(1, h - taps + 1) if back else h + taps - 1
    rows = placed(torch.randn(n, taps * c, height, w, dtype=wide).to(dtype), "channels_last")
    bias = placed(torch.randn(c, dtype=wide).to(dtype))
    made = Guarded(shape, dtype, "channels_last")
    ops.reflect_conv2d_sum_rows(rows, bias, back, made.tensor)
    expected = added(rows, c, taps, back, h)
    assert_near(made.check("y"), expected + bias.double()[:, None, None], "y", terms=8)
    ops.reflect_conv2d_sum_rows(rows, None, back, made.tensor)
    assert_near(made.check("y"), expected, "without a bias", terms=8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "taps"), THIN, ids=str)
def test_rows_are_copies_bit_for_bit(shape, taps, dtype):
    n, c, h, w = shape
    image = placed(torch.randn(shape, dtype=wide).to(dtype), "channels_last")
    made = Guarded((n, taps * c, h + taps - 1, w), dtype, "channels_last")
    ops.reflect_conv2d_spread_rows(image, made.tensor)
    expected = torch.zeros(n, taps * c, h + taps - 1, w, dtype=dtype)
    for t in range(taps):
        expected[:, t * c : (t + 1) * c, t : t + h] = image
    assert torch.equal(made.check("rows"), expected)
