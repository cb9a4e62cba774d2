# SPDX-License-Identifier: MIT
"""pool_exchange moves the bits that its reference moves, over every back end."""

from __future__ import annotations

import pytest
import torch
from numerics import same_values

from cyclegan_fast import backend
from cyclegan_fast.ops import pool_exchange, pool_exchange_reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 3, 16, 16), (3, 1, 5, 7), (2, 3, 33, 31), (4, 2, 1, 1)]
SIZE = 5
# What a pool decides: taken from a row, from the batch, a row that is replaced; kept or not.
DECISIONS = {
    1: [([5], [0]), ([2], [2]), ([5], [5]), ([0], [5])],
    2: [([5, 6], [0, 1]), ([3, 5], [3, 5]), ([6, 5], [5, 4])],
    3: [([5, 6, 7], [0, 1, 2]), ([1, 5, 3], [1, 5, 3]), ([4, 4, 7], [5, 4, 0])],
    4: [([5, 1, 7, 1], [5, 5, 5, 5]), ([0, 1, 2, 3], [3, 2, 1, 0])],
}


def operands(shape, dtype, device, layout, decision):
    generator = torch.Generator().manual_seed(sum(shape))

    def random(*size):
        values = torch.randn(size, generator=generator, dtype=torch.float64) + 3
        values = values.to(device, dtype)
        return values.contiguous(memory_format=layout)

    rows, pictures = random(SIZE + 1, *shape[1:]), random(*shape)
    take, put = (torch.tensor(numbers, device=device) for numbers in decision)
    return rows, pictures, take, put


def check(rows, pictures, take, put) -> None:
    ours, theirs = rows.clone(memory_format=torch.preserve_format), rows.clone()
    shown = pool_exchange(ours, pictures, take, put)
    expected = pool_exchange_reference(theirs, pictures, take, put)
    assert shown.dtype == rows.dtype and not shown.requires_grad
    assert same_values(shown, expected)
    assert same_values(ours[:-1], theirs[:-1])
    if backend.policy() != "reference":  # it puts there what is not kept
        assert same_values(ours[-1], rows[-1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_equals_the_reference(each_backend, device, dtype, shape, layout):
    for decision in DECISIONS[shape[0]]:
        check(*operands(shape, dtype, device, layout, decision))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_is_shown_but_not_kept(each_backend, device, dtype):
    rows, pictures, take, put = operands(
        (2, 3, 5, 5), dtype, device, torch.contiguous_format, ([5, 6], [4, 0])
    )
    largest = torch.finfo(dtype).max
    odd = [float("nan"), float("inf"), -float("inf"), largest, -largest, -0.0, 0.0]
    pictures[:, 0, 0, :5] = torch.tensor(odd[:5], dtype=dtype, device=device)
    pictures[:, 1, 0, :2] = torch.tensor(odd[5:], dtype=dtype, device=device)
    check(rows, pictures, take, put)
    shown = pool_exchange(rows, pictures, take, put)
    assert shown[0, 0, 0, 0].isnan() and rows[:-1].isfinite().all()
    assert rows[4, 0, 0, :3].tolist() == [0.0, 1.0, -1.0]
    assert rows[4, 1, 0, 0].signbit()


def test_numbers_out_of_range_touch_no_other_memory(each_backend, device):
    far = [-(2**40), -1, 2**40, SIZE + 4]
    decision = (far, [-1, SIZE, SIZE + 1, 2**40])
    rows, pictures, take, put = operands(
        (4, 1, 3, 3), torch.float32, device, torch.contiguous_format, decision
    )
    before = rows.clone()
    shown = pool_exchange(rows, pictures, take, put)
    assert torch.equal(rows[:-1], before[:-1])
    assert torch.equal(shown[0], before[0]) and torch.equal(shown[1], before[0])
    assert torch.equal(shown[2], pictures[3]) and torch.equal(shown[3], pictures[3])


def test_pictures_in_another_layout_and_off_the_vectors(each_backend, device):
    rows, pictures, take, put = operands(
        (2, 4, 6, 6), torch.float32, device, torch.channels_last, ([1, 6], [1, 3])
    )
    check(rows, pictures.contiguous(), take, put)
    check(rows, pictures.transpose(2, 3).contiguous().transpose(2, 3), take, put)
    flat = torch.empty(rows.numel() + 1, device=device)[1:].view(rows.shape)
    check(flat.copy_(rows), pictures, take, put)


def test_a_batch_of_none(each_backend, device):
    rows = torch.randn(3, 2, 4, 4, device=device)
    none = torch.empty(0, dtype=torch.int64, device=device)
    assert pool_exchange(rows, rows[:0], none, none).shape == (0, 2, 4, 4)


def test_opcheck_and_compile(fused_backend, device):
    given = operands((2, 3, 5, 5), torch.float32, device, torch.contiguous_format, ([1, 6], [1, 3]))
    torch.library.opcheck(torch.ops.cyclegan_fast.pool_exchange.default, (*given, fused_backend))
    torch._dynamo.reset()
    compiled = torch.compile(pool_exchange, fullgraph=True, backend="aot_eager")
    rows, again = given[0].clone(), given[0].clone()
    assert torch.equal(compiled(rows, *given[1:]), pool_exchange(again, *given[1:]))
    assert torch.equal(rows, again)


R, P, NO = torch.zeros(4, 3, 5, 5), torch.zeros(2, 3, 5, 5), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((R[0], P, NO, NO), ValueError, r"rows must have shape \[N, C, H, W\]"),
        ((R[:1], P, NO, NO), ValueError, "rows must be two pictures or more"),
        ((R, P[:, :2], NO, NO), ValueError, r"pictures must be \[3, 5, 5\] torch.float32"),
        ((R, P.half(), NO, NO), ValueError, r"pictures must be \[3, 5, 5\] torch.float32"),
        ((R, P, NO.int(), NO), TypeError, "take must be an int64 tensor"),
        ((R, P, NO, [0, 1]), TypeError, "put must be an int64 tensor"),
        ((R, P, NO[:1], NO), ValueError, r"take must be contiguous \[N\] = \[2\]"),
        ((R.transpose(1, 2), P.transpose(1, 2), NO, NO), ValueError, "rows must be contiguous or"),
        ((R.int(), P.int(), NO, NO), TypeError, "rows must be float16"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        pool_exchange(*arguments)
