# SPDX-License-Identifier: MIT
"""A step that cannot be captured: the run goes on plainly from it, as if none had been tried."""

from __future__ import annotations

import json

import null_cuda
import pytest
import torch
from test_null_cuda import under

pytestmark = [
    pytest.mark.skipif(null_cuda.why_not() is not None, reason=str(null_cuda.why_not())),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there"),
]

STEPS = """
import json, sys
import torch, under
from torch import nn
from cyclegan_fast import backend
from cyclegan_fast.errors import CaptureError
from cyclegan_fast.models import ResnetGenerator, NLayerDiscriminator
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.networks import Networks
from cyclegan_fast.training.runtime import configured
from cyclegan_fast.training.trainer import Trainer

class Reads(nn.Module):
    '''A generator whose forward reads on the host, and draws on it.'''
    def __init__(self):
        super().__init__()
        self.net = ResnetGenerator(3, 3, ngf=8, n_blocks=2, use_dropout=True)
    def forward(self, x):
        y = self.net(x) + torch.rand(()).item()
        if broken is not None:
            broken()
        if harmless == "harmless":
            return y
        return y + y.mean().item()

precision, graph, harmless, changed = sys.argv[1:]
broken = None
if harmless == "broken":
    def broken():
        if torch.cuda.is_current_stream_capturing():
            def refuse(*_):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            torch.cuda.synchronize = refuse
torch.manual_seed(3)
config = TrainConfig(
    dataroot="unused", device="cuda", precision=precision, cuda_graph=graph, load_size=32,
    crop_size=32, pool_size=2, n_epochs=1, n_epochs_decay=2,
)
told, steps, failed = [], [], None
with configured(config), backend.record() as served:
    nets = Networks(Reads(), Reads(), *(NLayerDiscriminator(3, 8, 1) for _ in range(2)))
    trainer = Trainer(config, nets, steps_per_epoch=3, tell=told.append)
    pictures = {side: torch.zeros(1, 3, 32, 32).pin_memory() for side in "AB"}
    generator = torch.cuda.default_generators[0]
    for step in range(7):
        if step == 5 and changed == "resumed":
            trainer.load_state_dict(trainer.state_dict())
        under.runtime.clear()
        try:
            losses = trainer.step(pictures)
        except CaptureError as error:
            failed = [step, str(error), error.broken]
            break
        steps.append({
            "work": under.runtime.work,
            "losses": [value.item() for value in losses.values()],
            "chance": [generator.get_offset(), torch.get_rng_state().sum().item()],
            "pool": trainer.engine.pool_A.stored,
            "served": backend.by_op(served),
            "count": trainer.step_count,
        })
    stream = torch.cuda.current_stream() == torch.cuda.default_stream()
    # Memory that another stream has used comes back only if the allocator knows of no capture.
    def active():
        return torch.cuda.memory_stats()["active_bytes.all.current"]
    before = active()
    x = torch.zeros(1 << 20, device="cuda")
    x.record_stream(torch.cuda.Stream())
    del x
    for _ in range(3):
        torch.zeros(1 << 10, device="cuda")
    freed = active() == before
print(json.dumps({
    "told": told, "steps": steps, "failed": failed, "stream": stream, "freed": freed,
    "why": trainer.not_captured,
}))
"""


def steps(graph: str, precision: str = "fp32", network: str = "reads", more: str = "") -> dict:
    return json.loads(under(STEPS, precision, graph, network, more).splitlines()[-1])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_run_goes_on_plainly_as_if_no_capture_had_been_tried(precision):
    plain, tried = steps("off", precision), steps("auto", precision)
    assert len(tried["steps"]) == 7 and tried["failed"] is None
    for step, (expected, found) in enumerate(zip(plain["steps"], tried["steps"], strict=True)):
        if step == 3:
            # The decision for the pool is copied, and the batch, for the capture.
            ours = [name for name in found.pop("work") if "cyclegan_fast" in name]
            assert ours == [name for name in expected.pop("work") if "cyclegan_fast" in name]
        assert found == expected, step
    assert tried["stream"] and tried["freed"]


def test_it_is_said_once_with_the_reason_and_the_place():
    for more in ("", "resumed"):
        (told,) = steps("auto", more=more)["told"]
        assert told.startswith("the step is not replayed as a CUDA graph and runs plainly: ")
        assert "not permitted when stream is capturing (<string>, line " in told
    assert steps("off")["told"] == []


def test_where_the_graph_was_asked_for_it_is_an_error():
    tried = steps("on")
    step, text, broken = tried["failed"]
    assert (step, broken, tried["told"]) == (3, False, [])
    assert text.startswith("the step cannot be captured as a CUDA graph: ")
    assert "not permitted" in text and ".item()" in text and "Use --cuda_graph auto or off" in text


@pytest.mark.parametrize("graph", ["auto", "on"])
def test_a_context_that_does_not_answer_is_an_error_that_says_so(graph):
    step, text, broken = steps(graph, network="broken")["failed"]
    assert (step, broken) == (3, True)
    assert "only a new process can mend" in text and "--resume --cuda_graph off" in text
