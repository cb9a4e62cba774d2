# SPDX-License-Identifier: MIT
"""One rank is one process, to the bit: buckets, means and their capture, NCCL on a GPU."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import toy

from cyclegan_fast import draws
from cyclegan_fast.training import Trainer, buckets, graphs, joining, ranks
from cyclegan_fast.training.runtime import configured

STEPS = 12


def batch(step: int) -> dict[str, torch.Tensor]:
    """Pictures of a step, a pure function of it."""
    shape = (1, 3, toy.SIDE, toy.SIDE)
    size = 3 * toy.SIDE * toy.SIDE
    a, b = (draws.uniforms(5, name, step, size).reshape(shape) * 2 - 1 for name in "AB")
    return {"A": torch.from_numpy(a).float(), "B": torch.from_numpy(b).float()}


def train(device: str, precision: str, team: ranks.Ranks | None):
    """Losses of every step, the final weights, and whether steps were captured."""
    config = toy.config(
        device=device,
        precision=precision,
        ngf=8,
        ndf=8,
        deterministic=True,
        cuda_graph="on" if device == "cuda" else "auto",
    )
    with configured(config):
        trainer = Trainer(config, steps_per_epoch=5, ranks=team)
        losses = [trainer.step(batch(step)) for step in range(STEPS)]
        values = [{name: float(loss) for name, loss in step.items()} for step in losses]
        weights = [p.detach().clone() for _, n in trainer.networks.items() for p in n.parameters()]
        captured = getattr(trainer._run, "_graph", None) is not None
        trainer.release_graph()
    return values, weights, captured


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_rank_gives_the_bits_of_one_process(device, precision, tmp_path, monkeypatch):
    if device == "cuda" and "under" in sys.modules:
        pytest.skip("NCCL asks the driver itself, which the null CUDA runtime does not stand for")
    monkeypatch.setattr(buckets, "LIMIT", 2000)  # several buckets
    expected = train(device, precision, None)
    name = "nccl" if device == "cuda" else "gloo"
    place = f"file://{tmp_path}/rendezvous"
    dist.init_process_group(name, init_method=place, rank=0, world_size=1)
    try:
        with joining.join(device) as team:
            assert team is not None and (team.count, team.backend) == (1, name)
            found = train(device, precision, team)
    finally:
        dist.destroy_process_group()
    assert found[0] == expected[0]
    assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1], strict=True))
    assert found[2] == expected[2] == (device == "cuda")


@pytest.mark.parametrize(("through", "captured"), [("nccl", True), ("gloo", False)])
def test_only_nccl_can_be_captured(through, captured):
    engine = SimpleNamespace(pool_A=None, ranks=SimpleNamespace(backend=through))
    reason = graphs.why_not(engine, torch.device("cuda"))
    assert (reason is None) == captured
    assert captured or "the ranks talk through gloo, and only NCCL can be captured" in reason
