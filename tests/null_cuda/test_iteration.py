# SPDX-License-Identifier: MIT
"""What the host does in a training step on a GPU: nothing that waits, no launch too many.

The Trainer runs under the null CUDA runtime with the paper's networks at 256 x 256; a capture that
CUDA would refuse, it refuses too. Convolutions are PyTorch's own there instead of cuDNN's, so only
launches of our kernels are counted; the committed record counts all (count_launches.py).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import null_cuda
import pytest
import torch
from test_null_cuda import under

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.skipif(null_cuda.why_not() is not None, reason=str(null_cuda.why_not())),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there"),
]
# Of the record's groups.
OURS = ("norms", "losses", "pools", "optimisers", "pads", "pictures put in")

STEP = """
import contextlib, dataclasses, json, sys, numpy as np, torch, under
from cyclegan_fast.data.picked import PickedPictures, gathered
from cyclegan_fast.ops import PackedPictures
from cyclegan_fast.ops.reflect_conv2d import table
from cyclegan_fast.ops.reflect_conv2d.layers import ON_LOAD
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.runtime import configured
from cyclegan_fast.training.trainer import Trainer
precision, graph, before, kind, on_load = sys.argv[1:]


def ours(layer, direction):
    if direction == ON_LOAD:
        return None if on_load == "none" else on_load
    names = table.TRITON if layer.kind == "reflect" else ("implicit",)
    return next(name for name in names if table.why_not(name, layer, direction) is None)


chosen = contextlib.ExitStack()
if on_load != "library":
    chosen.enter_context(table.choosing(ours))
packed = PackedPictures.pack([np.zeros((256, 256, 3), np.uint8)] * 3, [(286, 286)] * 3)
picks = [[1, 2, 3, 0]]
config = TrainConfig(dataroot="none", device="cuda", precision=precision, cuda_graph=graph)
with configured(config):
    trainer = Trainer(config, steps_per_epoch=1000)
    there = packed.to("cuda")
    scattered = dataclasses.replace(packed, taps=there.taps)

    def batch():
        if kind == "tensors":
            return torch.zeros(1, 3, 256, 256, device="cuda")
        chosen = torch.tensor(picks).pin_memory()
        few, most = there, 0
        if kind == "gathered":
            few, most = gathered(scattered, picks)[0], 256**2 * 3
        return PickedPictures(
            few, chosen, (256, 256), torch.float32, trainer.memory_format, most_bytes=most
        )

    for _ in range(int(before)):
        trainer.step({domain: batch() for domain in "AB"})
    pictures = {domain: batch() for domain in "AB"}
    under.runtime.clear()
    trainer.step(pictures)
runtime = under.runtime
waits = [runtime.synchronisations, runtime.copies_to_host]
print(json.dumps({"work": runtime.work, "waits": waits, "graph": runtime.graph}))
"""


def told(
    precision: str, graph: str, before: int, pictures: str = "tensors", on_load: str = "library"
) -> dict[str, list]:
    """What was done in a step after some others; the host must not have waited in it.

    on_load: what does the norms beside convolutions, all of which are ours then; "none": norms do;
    "library": convolutions are PyTorch's.
    """
    said = under(STEP, precision, graph, str(before), pictures, on_load)
    done = json.loads(said.splitlines()[-1])
    assert done["waits"] == [0, 0]
    assert not [work for work in done["work"] if "pageable" in work]
    return done


def step(*arguments, **options) -> list[str]:
    """The work of such a step."""
    return told(*arguments, **options)["work"]


def ours(work: list[str]) -> list[str]:
    """Kernels of ours in it."""
    return [name for name in work if "cyclegan_fast" in name or "triton" in name]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_replay_is_one_graph_and_the_copies_into_it(precision):
    work = step(precision, "on", before=4)
    graphs = [name for name in work if name.startswith("graph of")]
    assert len(graphs) == 1
    # Two pictures in, their layout changed; two decisions of four lists; the losses out.
    assert len(work) <= 12


@pytest.mark.parametrize(("pictures", "copies"), [("resident", 1), ("gathered", 3)])
def test_pictures_are_scaled_and_cropped_inside_the_graph(pictures, copies):
    plain = step("bf16", "off", before=2, pictures=pictures)
    assert sum("augment" in work for work in plain) == 2
    work = step("bf16", "on", before=4, pictures=pictures)
    assert len([name for name in work if name.startswith("graph of")]) == 1
    assert not [name for name in work if "augment" in name]
    # What to pick, and for gathered ones the pictures and their sizes, instead of two batches whose
    # layout is changed and which are then copied.
    assert len(work) == len(step("bf16", "on", before=4)) + 2 * (copies - 2)


def test_launches_of_our_kernels_are_no_more_than_the_record_says():
    """In a plain step, and in the graph that a replay launches: the same kernels in both."""
    rows = json.loads((ROOT / "benchmarks/results/launches.json").read_text())["256 batch 1"][
        "rows"
    ]
    groups = rows["ours bf16"]["groups"]
    recorded = sum(groups[name]["launches"] for name in OURS)
    plain = ours(step("bf16", "off", before=2))
    replayed = told("bf16", "on", before=4)
    assert 0 < len(plain) <= recorded
    assert Counter(ours(replayed["graph"])) == Counter(plain)
    assert not ours(replayed["work"]), "a replay launches kernels of ours beside its graph"


@pytest.mark.parametrize(
    ("on_load", "row"),
    [("none", "convolutions in Triton"), ("hopper", "convolutions in Triton, norms on load")],
)
def test_a_graph_whose_convolutions_are_ours_is_no_larger_than_the_record_says(on_load, row):
    """All that a replay does is in the count then: no library has launches of its own."""
    rows = json.loads((ROOT / "benchmarks/results/launches.json").read_text())["256 batch 1"][
        "rows"
    ]
    graph = told("bf16", "on", before=4, on_load=on_load)["graph"]
    assert 290 < len(graph) <= rows[f"ours bf16, {row}"]["launches"] <= 350


def test_hopper_does_norms_on_load_in_a_step():
    """In both generators' trunks at once, twice: the blocks' second layers, and all backward."""
    work = step("bf16", "off", before=2, on_load="hopper")
    kernels = [name for name in work if "reflect_conv2d_hopper_kernel" in name]
    of_input = [name for name in kernels if "bfloat16Lb1E" in name]
    assert (len(kernels) - len(of_input), len(of_input)) == (2 * 9, 2 * 18)
    assert all("Lb1EEEv" in name for name in of_input)  # folded
