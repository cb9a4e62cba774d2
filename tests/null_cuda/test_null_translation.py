# SPDX-License-Identifier: MIT
"""Translation on the null CUDA runtime: what is captured, replayed and waited for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import null_cuda  # noqa: E402
from test_null_cuda import under  # noqa: E402

pytestmark = pytest.mark.skipif(null_cuda.why_not() is not None, reason=str(null_cuda.why_not()))

TRANSLATOR = """
import json
import numpy as np, torch, under
from cyclegan_fast.io.architecture import Architecture
from cyclegan_fast.io.captured import KEPT
from cyclegan_fast.io.translation import Translator
from cyclegan_fast.models import ResnetGenerator

def translator():
    architecture = Architecture("resnet", 3, 3, 8, 2, "instance")
    return Translator(ResnetGenerator(3, 3, ngf=8, n_blocks=2), architecture, "cuda", "bf16")

def begin(ours, n, height, width):
    return ours.start([np.zeros((height, width, 3), np.uint8)] * n)

ours, batches = translator(), []
for _ in range(5):
    under.runtime.clear()
    wait = begin(ours, 2, 30, 41)
    begun = under.runtime.synchronisations
    shapes = [picture.shape for picture in wait()]
    batches.append([under.runtime.work, begun, under.runtime.synchronisations, shapes])

ours = translator()
replayed = []
for n in [*range(KEPT + 1)] * 3 + [KEPT, 0]:
    begin(ours, 1, 32, 20 + 4 * n)()
    replayed.append(ours.captured.replayed)
kept = [list(shape) for shape in ours.captured.shapes]
print(json.dumps({"batches": batches, "replayed": replayed, "kept": kept, "most": KEPT}))
"""


@pytest.fixture(scope="module")
def told():
    return json.loads(under(TRANSLATOR))


def test_a_replayed_batch_is_one_graph_and_two_copies_and_waits_once(told):
    plain, _, captured, *replays = told["batches"]
    kernels = plain[0][1:-1]
    assert len(kernels) > 50 and "graph of" not in " ".join(plain[0])
    for work, begun, waited, shapes in replays:
        assert work == [
            "copy pinned to device",
            f"graph of {len(kernels)}",
            "copy device to pinned",
        ]
        assert (begun, waited) == (0, 1), "to begin a batch waits for nothing"
        assert shapes == [[30, 41, 3]] * 2
    assert captured[1] == 1, "a capture waits for the device before it begins"
    assert plain[1:3] == [0, 1]


def test_the_graph_used_longest_ago_makes_room_and_is_rare_again(told):
    most, replayed = told["most"], told["replayed"]
    # Two turns run plainly, the third is captured and replayed, and the last size drops the first.
    assert replayed[: 2 * (most + 1)] == [0] * 2 * (most + 1)
    assert replayed[3 * (most + 1) - 1] == most + 1
    assert replayed[-2:] == [most + 2, most + 2]
    widths = [shape[2] for shape in told["kept"]]
    assert widths == [20 + 4 * n for n in range(1, most + 1)]
