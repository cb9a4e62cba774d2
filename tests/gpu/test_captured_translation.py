# SPDX-License-Identifier: MIT
"""Translation by replay against the plain run, on a GPU: same code, same bits."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.io import captured, tree
from cyclegan_fast.io.architecture import Architecture
from cyclegan_fast.io.translation import Translator
from cyclegan_fast.models import ResnetGenerator

pytestmark = pytest.mark.gpu
ARCHITECTURE = Architecture("resnet", 3, 3, 8, 2, "instance")
# (pictures, height, width): sizes that fit and that do not.
CLASSES = [(1, 32, 32), (3, 32, 32), (2, 30, 41), (1, 64, 24)]


@pytest.fixture(autouse=True)
def deterministic():
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


def translator(precision: str) -> Translator:
    torch.manual_seed(3)
    net = ResnetGenerator(3, 3, ngf=8, n_blocks=2)
    for parameter in net.parameters():
        parameter.requires_grad_(False).normal_(0, 0.2)
    return Translator(net, ARCHITECTURE, "cuda", precision)


def batch(seed: int, n: int, height: int, width: int) -> list[np.ndarray]:
    dice = np.random.default_rng(seed)
    return list(dice.integers(0, 256, (n, height, width, 3), dtype=np.uint8))


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def plainly(of: Translator, group: list[np.ndarray]) -> list[np.ndarray]:
    """What `start` gives with no graph in it."""
    kept, of.captured = of.captured, captured.Captured(of._levels, of.device)
    try:
        return of.start(group)()
    finally:
        of.captured = kept


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_replay_gives_the_bits_of_the_plain_run(precision):
    """Several sizes in turns, new pictures each time, results kept while others are made."""
    ours = translator(precision)
    waiting = []
    for turn in range(6):
        for n, height, width in CLASSES:
            group = batch(100 * turn + n + height, n, height, width)
            waiting.append((ours.start(group), plainly(ours, group)))
    assert ours.captured.plain == captured.PLAIN_RUNS * len(CLASSES)
    assert ours.captured.replayed == (6 - captured.PLAIN_RUNS) * len(CLASSES)
    for wait, expected in waiting:
        for ours_, plain in zip(wait(), expected, strict=True):
            assert np.array_equal(ours_, plain)
    pairs = zip(waiting, waiting[len(CLASSES) :], strict=False)
    same = [np.array_equal(first()[0], second()[0]) for (first, _), (second, _) in pairs]
    assert not any(same), "a replay gave the pictures of an earlier one"


def test_a_replay_reads_the_weights_that_are_there_now_and_no_freed_memory():
    ours = translator("bf16")
    group = batch(1, 2, 32, 32)
    for _ in range(4):
        before = ours.start(group)()
    assert ours.captured.replayed == 2
    with torch.no_grad():
        for parameter in ours.net.parameters():
            parameter.mul_(-0.5)
    # Whatever a graph still pointed to would be overwritten now.
    gc.collect()
    torch.cuda.empty_cache()
    rubbish = [torch.full((2**n,), 7.0, device="cuda") for n in range(8, 22)]
    after = ours.start(group)()
    assert ours.captured.replayed == 3
    assert all(map(np.array_equal, after, plainly(ours, group)))
    assert not any(map(np.array_equal, after, before))
    del rubbish


def test_more_sizes_than_graphs_are_kept():
    ours = translator("fp32")
    sizes = [(32, 4 * n) for n in range(5, 5 + captured.KEPT + 3)]
    for turn in range(captured.PLAIN_RUNS + 2):
        for n, size in enumerate(sizes):
            ours.start(batch(100 * turn + n, 1, *size))()
    assert len(ours.captured.shapes) == captured.KEPT
    for n, size in enumerate(sizes):
        group = batch(n, 1, *size)
        assert np.array_equal(ours.start(group)()[0], plainly(ours, group)[0])


def test_a_rare_size_is_not_captured():
    ours = translator("fp32")
    for n, (_, height, width) in enumerate(CLASSES):
        ours.start(batch(n, 1, height, width))()
    assert not ours.captured.shapes and ours.captured.plain == len(CLASSES)


def test_no_room_for_a_graph_is_room_for_a_plain_run(monkeypatch):
    ours = translator("fp32")
    group = batch(1, 1, 32, 32)
    expected = plainly(ours, group)

    class Full:
        def __init__(self, *_arguments, **_options):
            raise torch.OutOfMemoryError("no memory for a graph")

    monkeypatch.setattr(torch.cuda, "graph", Full)
    for _ in range(4):
        assert np.array_equal(ours.start(group)()[0], expected[0])
    assert ours.captured.replayed == 0 and not ours.captured.shapes


def test_a_tree_of_pictures(tmp_path):
    """The whole command's work, batches of several sizes in flight."""
    for index in range(20):
        height, width = ((32, 32), (30, 41))[index % 2]
        path = tmp_path / "in" / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(batch(index, 1, height, width)[0]).save(path)
    jobs, _ = tree.plan(tmp_path / "in", tmp_path / "out")
    ours = translator("fp32")
    summary = tree.run(ours, jobs, 3, batch_size=2)
    assert summary.written == 20 and ours.captured.replayed == 6
    before = [pixels(job.source) for job in jobs]
    after = [pixels(job.target) for job in jobs]
    for index in (n for n in range(18) if n % 4 < 2):  # as they went together: 0 with 2, 1 with 3
        expected = plainly(ours, [before[index], before[index + 2]])
        assert all(map(np.array_equal, expected, (after[index], after[index + 2])))
