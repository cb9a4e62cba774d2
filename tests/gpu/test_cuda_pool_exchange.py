# SPDX-License-Identifier: MIT
"""The raw CUDA op pool_exchange against its reference: every bit, in every dtype and layout."""

from __future__ import annotations

import pytest
import raw_ops
import torch
from numerics import same_values
from raw_ops import laid_out

from cyclegan_fast.ops import pool_exchange_reference

pytestmark = pytest.mark.gpu

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
SIZE = 5
DECISIONS = [
    ([5, 6, 7], [0, 1, 2]), ([1, 5, 3], [1, 5, 3]), ([4, 4, 7], [5, 4, 0]),
    ([-1, 2**40, 9], [-1, 2**40, 6]),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(3, 8, 16, 16), (3, 3, 5, 7), (3, 1, 1, 1), (3, 16, 33, 31)])
@pytest.mark.parametrize("decision", DECISIONS, ids=str)
def test_pool_exchange(dtype, layout, shape, decision):
    generator = torch.Generator().manual_seed(3)

    def random(*size):
        values = torch.randn(size, generator=generator, dtype=torch.float64)
        return laid_out(values.to(raw_ops.device).to(dtype), layout)

    rows, pictures = random(SIZE + 1, *shape[1:]), random(*shape)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf")], dtype=dtype)
    pictures[:, 0, 0, 0] = odd.to(raw_ops.device)
    take, put = (torch.tensor(numbers, device=raw_ops.device) for numbers in decision)
    expected_rows, last = rows.clone(), rows[-1].clone()
    expected = pool_exchange_reference(expected_rows, pictures, take, put)
    shown = torch.full_like(pictures, 7.0)
    raw_ops.ops.pool_exchange_fwd(rows, pictures, take, put, shown)
    assert torch.equal(rows[-1], last)
    for ours, theirs in ((shown, expected), (rows[:-1], expected_rows[:-1])):
        assert same_values(ours, theirs)


def test_pool_exchange_in_a_captured_graph():
    if raw_ops.device != "cuda":
        pytest.skip("graphs are a GPU's")
    rows, pictures = torch.randn(SIZE + 1, 3, 8, 8, device="cuda"), torch.zeros(1, 3, 8, 8).cuda()
    take, put = (torch.zeros(1, dtype=torch.int64, device="cuda") for _ in range(2))
    shown = torch.empty_like(pictures)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        raw_ops.ops.pool_exchange_fwd(rows, pictures, take, put, shown)
    for step in range(4):
        before = rows.clone()
        pictures.fill_(step)
        take.fill_(step)
        put.fill_(step)
        graph.replay()
        assert torch.equal(shown[0], before[step])
        assert bool((rows[step] == step).all())
