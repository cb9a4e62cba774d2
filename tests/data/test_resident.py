# SPDX-License-Identifier: MIT
"""Batches of pictures that lie on the device are the dataset's own, to the bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.data import Loader, UnpairedDataset
from cyclegan_fast.data.resident import ResidentPictures, _fits

CPU = torch.device("cpu")
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(3)
    for side, sizes in (("A", [(20, 20), (31, 47), (16, 70)]), ("B", [(64, 22), (24, 24)])):
        (tmp_path / f"train{side}").mkdir()
        for number, size in enumerate(sizes):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"train{side}" / f"{number}.png")
    return tmp_path


def resident(
    data, dtype=torch.float32, layout=torch.contiguous_format, device="cpu"
) -> ResidentPictures:
    made = ResidentPictures.of(data, torch.device(device), dtype, layout)
    assert isinstance(made, ResidentPictures), made
    return made


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"load_size": 26, "crop_size": 22},
        {"load_size": 18, "crop_size": 16, "input_nc": 1},
        {"preprocess": "crop", "crop_size": 15},
        {"preprocess": "scale_width_and_crop", "load_size": 24, "crop_size": 20, "seed": 9},
        {"load_size": 24, "crop_size": 24, "flip": False, "serial_batches": True},
    ],
    ids=str,
)
def test_batches_are_the_datasets(root, options, layout, device):
    data, other = (UnpairedDataset(root, **options) for _ in range(2))
    ours = resident(data, layout=layout, device=device)
    for step in range(6):
        expected, batch = other.batch(step, 2), ours.batch(step, 2)
        assert batch["A_paths"] == expected["A_paths"] and batch["B_paths"] == expected["B_paths"]
        for side in "AB":
            made = batch[side].make()
            assert made.device.type == device and made.shape == batch[side].shape
            assert torch.equal(made.cpu(), expected[side])
            assert made.is_contiguous(memory_format=layout)
    assert torch.equal(data.batch(1, 2)["A"], other.batch(1, 2)["A"])  # still there for samples


def test_of_the_networks_dtype(root):
    data = UnpairedDataset(root, load_size=20, crop_size=16)
    half = resident(data, torch.bfloat16).batch(2, 2)
    assert torch.equal(half["B"].make(), data.batch(2, 2)["B"].bfloat16())


def test_the_smaller_of_a_picture_and_its_scaled_self_is_kept(root):
    packed = UnpairedDataset(root, load_size=26, crop_size=22).pack()
    kept = [tuple(row[1:3]) for row in packed["A"].table.tolist()]
    assert kept == [(20, 20), (26, 26), (26, 26)]
    assert all(tuple(row[3:5]) == (26, 26) for row in packed["A"].table.tolist())


def test_no_file_is_read_again(root):
    data = UnpairedDataset(root, load_size=20, crop_size=16)
    ours = resident(data)
    expected = [data.batch(step) for step in range(4)]
    for file in root.rglob("*.png"):
        file.unlink()
    for step, batch in enumerate(Loader(ours, stop_step=4, threads=0)):
        assert torch.equal(batch["A"].make(), expected[step]["A"])
    assert "all on cpu" in str(ours)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preprocess": "none"}, "they keep their sizes"),
        ({"cache_bytes": 2000}, "they do not fit"),
        ({"check": False}, "they do not fit"),
    ],
)
def test_why_pictures_stay_where_they_are(root, options, reason):
    data = UnpairedDataset(root, **({"load_size": 20, "crop_size": 16} | options))
    assert reason in ResidentPictures.of(data, CPU, torch.float32, torch.contiguous_format)


def test_a_data_set_of_the_callers_own_is_left_to_it():
    reason = ResidentPictures.of([], CPU, torch.float32, torch.contiguous_format)
    assert reason == "they come from the caller"


def test_a_gpu_with_little_room_keeps_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8000, 10_000))
    gpu = torch.device("cuda")
    assert _fits(2000, gpu) and not _fits(2001, gpu) and _fits(2001, CPU)


def gathered(data, layout=torch.contiguous_format, device="cpu") -> ResidentPictures:
    """As where a GPU has little room: what a batch takes is brought over, taps are there."""
    packed = {
        side: dataclasses.replace(pictures, taps=pictures.taps.to(device))
        for side, pictures in data.pack().items()
    }
    return ResidentPictures(data, packed, torch.float32, layout, gathers=True)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_batches_of_gathered_pictures_are_the_datasets(root, layout, device):
    options = {"load_size": 26, "crop_size": 22, "seed": 4}
    data, other = (UnpairedDataset(root, **options) for _ in range(2))
    ours = gathered(data, layout, device)
    assert "all in the host's memory" in str(ours) and ours.nbytes < 20_000
    for step in range(6):
        expected, batch = other.batch(step, 3), ours.batch(step, 3)
        for side in "AB":
            made = batch[side].make()
            assert torch.equal(made.cpu(), expected[side])
            assert made.is_contiguous(memory_format=layout)
            brought = batch[side].pictures
            assert len(brought) == len(brought.table) == len(batch[side])
            assert len(brought.levels) <= batch[side].most_bytes


@pytest.mark.parametrize("place", [resident, gathered])
def test_a_static_batch_takes_over_the_next(root, place, device):
    data = UnpairedDataset(root, load_size=26, crop_size=22)
    ours = place(data, device=device)
    static = ours.batch(0)["A"].static()
    addresses = [static.picks.data_ptr(), static.pictures.levels.data_ptr()]
    for step in range(6):
        batch = ours.batch(step)["A"]
        assert static.kind == batch.kind
        static.copy_(batch)
        assert torch.equal(static.make(), batch.make())
    assert addresses == [static.picks.data_ptr(), static.pictures.levels.data_ptr()]
    again = place(UnpairedDataset(root, load_size=26, crop_size=22), device=device)
    others = ours.batch(0, 2)["A"], ours.batch(0)["B"], again.batch(0)["A"]
    assert not [other for other in others if other.kind == static.kind]


def test_batches_in_pinned_memory(monkeypatch):
    class Data:
        def batch(self, step, batch_size):
            return {"A": torch.full((1,), step), "A_paths": ["a"]}

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: -self)
    for threads in (0, 2):
        with Loader(Data(), stop_step=3, threads=threads, pin=True) as loader:
            assert [(batch["A"].item(), batch["A_paths"]) for batch in loader] == [
                (0, ["a"]), (-1, ["a"]), (-2, ["a"])
            ]  # fmt: skip
