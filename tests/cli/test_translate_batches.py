# SPDX-License-Identifier: MIT
"""translate in batches: each picture's result is what it is alone, whatever goes with it."""

import numpy as np
import pytest
import torch
from PIL import Image
from small import generator, picture

from cyclegan_fast.io import pictures, tree
from cyclegan_fast.io.architecture import Architecture
from cyclegan_fast.io.translation import Translator, translate_tensor

# Sizes that fit and that do not; some go through the network as one size, 24 x 20.
SIZES = [(24, 20), (23, 19), (24, 20), (16, 16), (22, 20), (24, 20), (9, 33), (23, 19), (1, 5)]
ARCHITECTURE = Architecture("resnet", 3, 3, 4, 2, "instance")


@pytest.fixture
def jobs(tmp_path):
    for index, (height, width) in enumerate(SIZES):
        picture(tmp_path / "in" / f"{index}.png", height, width, seed=index)
    return tree.plan(tmp_path / "in", tmp_path / "out")[0]


@pytest.fixture
def translator(tmp_path):
    return Translator(generator(tmp_path / "net.pth"), ARCHITECTURE, "cpu", "fp32")


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def alone(translator, source):
    """The picture by itself: no batch, padded as a tensor, not as a picture."""
    x = torch.from_numpy(pixels(source))[None].movedim(-1, 1).float() / 127.5 - 1
    with torch.inference_mode():
        return pictures.to_uint8(translate_tensor(translator.net, x, ARCHITECTURE))[0]


def differ(translator, jobs):
    """Pictures whose result is not what it is alone.

    oneDNN may choose another kernel for another batch, and a value near the middle between two grey
    levels may then be rounded to the other: one level in few places is none.
    """
    found = []
    for job in jobs:
        off = np.abs(pixels(job.target).astype(int) - alone(translator, job.source))
        if off.max() > 1 or (off > 0).mean() > 1e-3:
            found.append(job.source.name)
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_result_does_not_depend_on_what_goes_with_it(jobs, translator, batch_size):
    done = []
    summary = tree.run(
        translator, jobs, 3, batch_size=batch_size, on_done=lambda job, _: done.append(job)
    )
    assert summary.written == len(jobs) and not summary.failed
    assert sorted(done, key=str) == sorted(jobs, key=str)
    for job, size in zip(jobs, SIZES, strict=True):
        assert pixels(job.target).shape == (*size, 3)
    assert not differ(translator, jobs)
    if batch_size == 1:
        for job in jobs:
            assert np.array_equal(pixels(job.target), alone(translator, job.source))


def test_results_that_are_exchanged_within_a_batch_would_be_noticed(jobs, translator):
    class Exchanging:
        fitting = translator.fitting

        def start(self, group):
            wait = translator.start(group)
            return lambda: wait()[::-1]

    tree.run(Exchanging(), jobs, 3, batch_size=3)
    # 0, 1 and 2 are the first batch; 0 and 2 are of one size.
    assert differ(translator, [jobs[0], jobs[2]]) == ["0.png", "2.png"]


def test_pictures_of_one_padded_size_go_together(jobs, translator):
    groups = []

    class Noting:
        fitting = translator.fitting

        def start(self, group):
            groups.append([picture.shape[:2] for picture in group])
            return translator.start(group)

    tree.run(Noting(), jobs, 3, batch_size=100)
    assert max(map(len, groups)) == 6  # (24, 20), (23, 19) and (22, 20)
    assert all(len({translator.fitting(*size) for size in group}) == 1 for group in groups)


def test_a_bad_picture_in_the_middle_of_a_batch(jobs, translator):
    jobs[2].source.write_bytes(jobs[2].source.read_bytes()[:60])
    summary = tree.run(translator, jobs, 3, batch_size=3)
    assert [error.path for error in summary.failed] == [str(jobs[2].source)]
    assert summary.written == len(jobs) - 1 and not jobs[2].target.exists()
    assert not differ(translator, [job for job in jobs if job is not jobs[2]])


def test_pixels_limit_a_batch(jobs, translator):
    groups = []

    class Noting:
        fitting = translator.fitting

        def start(self, group):
            groups.append(len(group) * np.prod(translator.fitting(*group[0].shape[:2])))
            return translator.start(group)

    tree.run(Noting(), jobs, 3, batch_size=100, batch_pixels=1000)
    assert max(groups) == 960 and sum(1 for pixels in groups if pixels == 960) == 3


def test_pictures_held_are_bounded_in_bytes(tmp_path, monkeypatch):
    """Many sizes, one picture each: none waits for another for long, and none is lost."""
    held, most = [], 3 * 40 * 40 * 4
    monkeypatch.setattr(tree, "HELD_BYTES", most)
    for index in range(40):
        picture(tmp_path / "in" / f"{index}.png", 40, 20 + index % 20, seed=index)
    jobs, _ = tree.plan(tmp_path / "in", tmp_path / "out")
    taken = 0

    class Counting:
        def fitting(self, height, width):
            nonlocal taken
            taken += height * width * 3
            held.append(taken)
            return height, width

        def start(self, group):
            nonlocal taken
            taken -= sum(picture.nbytes for picture in group)
            made = [255 - picture for picture in group]
            return lambda: made

    summary = tree.run(Counting(), jobs, 3, batch_size=100)
    assert summary.written == 40
    assert max(held) <= most + 40 * 40 * 3
    for job in jobs:
        assert np.array_equal(pixels(job.target), 255 - pixels(job.source))


def test_the_command_tells_its_speed_and_what_it_waited_for(tmp_path, run):
    generator(tmp_path / "net.pth")
    for index in range(3):
        picture(tmp_path / "in" / f"{index}.png", seed=index)
    command = ["translate", tmp_path / "net.pth", tmp_path / "in", "-o", tmp_path / "out"]
    done = run(*command, "--device", "cpu", "--batch_size", 2)
    assert done.status == 0
    assert "3 written, 0 skipped" in done.out and "images/s" in done.out
    assert "of the time for pictures to be read" in done.out
    assert "graphs" not in done.out
    assert run(*command, "--batch_size", "many").status == 2
