# SPDX-License-Identifier: MIT
"""The null CUDA runtime refuses what CUDA refuses, and the trainer's step on it asks for nothing
forbidden."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import null_cuda  # noqa: E402

pytestmark = pytest.mark.skipif(null_cuda.why_not() is not None, reason=str(null_cuda.why_not()))

NOT_PERMITTED = "not permitted when stream is capturing"
# What is done between the begin and the end of a capture -> what comes of it.
CAPTURES = {
    "y = x * 3": "captured",
    "x.sum().item()": NOT_PERMITTED,
    "torch.cuda.synchronize()": NOT_PERMITTED,
    "x.copy_(torch.ones(3), non_blocking=True)": "unless the CPU tensor is pinned",
    "copy(x.data_ptr(), pageable, 12)": "error 900",
    "x.copy_(pinned, non_blocking=True)": "captured",
    "allocate(ctypes.byref(ctypes.c_void_p()), 64)": "error 900",
    "fork()": "before all forked streams were joined",
    "fork(); current().wait_stream(side)": "captured",
    "current().wait_event(outside)": "error of the null CUDA runtime",
}
CAPTURE = """
import ctypes, json, sys, torch, under
cuda = under.runtime._library
pageable = ctypes.create_string_buffer(12)
pinned = torch.ones(3).pin_memory()
x = torch.ones(3, device="cuda")
side, outside, current = torch.cuda.Stream(), torch.cuda.Event(), torch.cuda.current_stream
outside.record()

def checked(error):
    if error:
        cuda.cudaGetLastError()
        raise RuntimeError(f"error {error}")

def copy(target, source, size):
    stream = ctypes.c_void_p(current().cuda_stream)
    checked(cuda.cudaMemcpyAsync(ctypes.c_void_p(target), source, size, 4, stream))

def allocate(address, size):
    checked(cuda.cudaMalloc(address, size))

def fork():
    side.wait_stream(current())
    with torch.cuda.stream(side):
        x * 3

answers = []
for body in json.loads(sys.argv[1]):
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            y = x * 2
            exec(body)
    except Exception as error:
        answers.append(f"{error} {error.__context__}")
    else:
        answers.append("captured")
print(json.dumps(answers))
"""


def under(code: str, *arguments: str) -> str:
    """What code prints under the null runtime."""
    command = [sys.executable, str(HERE / "under.py"), "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_captures():
    answers = json.loads(under(CAPTURE, json.dumps(list(CAPTURES))))
    for (body, expected), answer in zip(CAPTURES.items(), answers, strict=True):
        assert expected in answer, body


def test_work_is_noted_and_device_memory_reads_as_zero():
    printed = under(
        """
import torch, under
x = torch.ones(5).cuda()
under.runtime.clear()
y = x + 1
values = y.cpu().tolist()
work = under.runtime.work
assert len(work) == 2 and "add" in work[0].lower() and work[1] == "copy device to pageable", work
assert under.runtime.synchronisations == 1 and under.runtime.copies_to_host == 1
print(values)
"""
    )
    assert printed == "[0.0, 0.0, 0.0, 0.0, 0.0]"


MEMORY = """
import torch, under
x = torch.ones(3, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = x * 2
x.copy_(torch.ones(3))
graph.replay()
values = y.clone()
try:
    y.copy_(torch.ones(3))
except Exception as error:
    print(error)
"""


def test_a_graphs_memory_is_not_written_from_outside_of_it():
    assert "error of the null CUDA runtime" in under(MEMORY)


ADAM = """
import torch, under
from cyclegan_fast.training.optimizer import Adam

def captured(plain_steps, told):
    weight = torch.nn.Parameter(torch.zeros(5, device="cuda"))
    adam = Adam([("weight", weight)], 1e-3, 0.5)
    weight.grad = torch.zeros_like(weight)
    for _ in range(plain_steps):
        adam.step()
    for _ in range(2):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            adam.step()
        if told:
            adam.finish_capture()
    return "captured"

for case in ((0, True), (1, False), (1, True)):
    try:
        print(captured(*case))
    except RuntimeError as error:
        print(str(error).split(":")[0])
"""


def test_a_step_of_adam_is_captured_after_a_plain_one_and_told_when():
    assert under(ADAM).split() == ["adam", "adam", "captured"]


def test_the_host_cannot_follow_a_pointer_to_the_device():
    code = "import ctypes, torch; x = torch.ones(5).cuda(); ctypes.string_at(x.data_ptr(), 4)"
    command = [sys.executable, str(HERE / "under.py"), "-c", code]
    assert subprocess.run(command, capture_output=True).returncode < 0


TRAINER = """
import json
import torch, under
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.runtime import configured
from cyclegan_fast.training.trainer import Trainer

def told(**options):
    config = TrainConfig(
        dataroot="unused", device="cuda", netG="resnet_2blocks", ngf=16, ndf=16,
        load_size=32, crop_size=32, pool_size=2, n_epochs=1, n_epochs_decay=2, **options,
    )
    steps = []
    with configured(config):
        trainer = Trainer(config, steps_per_epoch=3)
        pictures = {side: torch.zeros(1, 3, 32, 32).pin_memory() for side in "AB"}
        for step in range(8):
            under.runtime.clear()
            trainer.step(pictures)
            runtime = under.runtime
            steps.append([runtime.work, runtime.synchronisations, runtime.copies_to_host])
    return steps

print(json.dumps({
    f"{precision} {graph}": told(precision=precision, cuda_graph=graph)
    for precision in ("fp32", "bf16", "fp16") for graph in ("on", "off")
} | {"blocks again on": told(precision="bf16", cuda_graph="on", checkpoint="blocks")}))
"""


@pytest.fixture(scope="module")
def steps():
    """Work, synchronisations and copies to the host of eight steps of each kind of run."""
    return json.loads(under(TRAINER))


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16", "blocks again"])
def test_a_replayed_step_is_one_graph_and_a_few_copies(steps, kind):
    told = steps[f"{kind} on"]
    # Three plain steps, then the capture, which waits for the device before it begins.
    assert all(counts == [0, 0] for _, *counts in told[:3] + told[4:])
    plain, replay = told[2][0], told[7][0]
    (graph,) = [name for name in replay if name.startswith("graph of")]
    within = 0.9 * len(plain) < int(graph.split()[-1]) <= len(plain)
    assert within, "a plain step is in the graph, and nothing beside it"
    assert len(replay) < 30, replay


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_plain_step_waits_for_nothing(steps, precision):
    told = steps[f"{precision} off"]
    assert all(counts == [0, 0] for _, *counts in told)
    names = " ".join(told[-1][0])
    assert "instance_norm_act" in names or "cyclegan_fast" in names
    assert "triton adam" in names and "graph of" not in names
    assert ("non_finite" in names) == (precision == "fp16")
