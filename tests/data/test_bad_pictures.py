# SPDX-License-Identifier: MIT
"""A data set with bad files in it: skipped or fatal, all named, before the run and during it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import SMALL, fill, fingerprint, numbers
from PIL import Image

from cyclegan_fast.data import UnpairedDataset
from cyclegan_fast.errors import BadImageError, DataError


def spoil(root: Path) -> dict[str, str]:
    """Adds one refused file of each kind to trainA; returns name -> part of the reason."""
    whole = (root / "trainA" / "0.png").read_bytes()
    (root / "trainA" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "trainA" / "text.png").write_bytes(b"not a picture")
    (root / "trainA" / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    (root / "trainA" / "dangling.png").symlink_to("nowhere")
    os.mkfifo(root / "trainA" / "pipe.png")
    Image.new("RGB", (60, 60)).save(root / "trainA" / "large.png")
    return {
        "cut.png": "cannot be decoded",
        "text.png": "is no picture",
        "eps.png": "is no picture",
        "dangling.png": "link leads nowhere",
        "pipe.png": "is not a file",
        "large.png": "more than the budget of 2500",
    }


def test_skip_leaves_refused_files_out_and_reports_all_of_them(root):
    clean = [fingerprint(UnpairedDataset(root, **SMALL).batch(step, 3)) for step in range(6)]
    expected = spoil(root)
    dataset = UnpairedDataset(root, max_pixels=2500, **SMALL)
    found = {Path(error.path).name: error.reason for error in dataset.report.bad}
    assert set(found) == set(expected)
    assert all(part in found[name] for name, part in expected.items())
    assert all(name in str(dataset.report) for name in expected)
    # What is left is the clean set, and so are its batches.
    assert [fingerprint(dataset.batch(step, 3)) for step in range(6)] == clean


def test_fail_names_all_of_them_at_once(root):
    expected = spoil(root)
    with pytest.raises(DataError, match="pictures cannot be used; 19 files, 6 refused") as caught:
        UnpairedDataset(root, on_bad="fail", max_pixels=2500, **SMALL)
    assert all(name in str(caught.value) for name in expected)


def test_a_domain_with_nothing_left_raises_even_when_skipping(tmp_path):
    fill(tmp_path, trainA=1, trainB=1)
    (tmp_path / "trainB" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="0.png: is no picture"):
        UnpairedDataset(tmp_path, **SMALL)


def test_what_was_changed_is_counted_with_an_example(root):
    rgba = np.zeros((20, 20, 4), np.uint8)
    for name in ("x.png", "y.png"):
        Image.fromarray(rgba).save(root / "trainB" / name)
    report = UnpairedDataset(root, background=(1, 2, 3), **SMALL).report
    assert report.files == 15 and not report.bad
    assert report.notes == {"alpha composited over rgb(1, 2, 3)": 2}
    assert "2 files, e.g." in str(report) and "x.png" in str(report)


def test_a_file_that_vanishes_is_replaced_reported_once_and_the_run_goes_on(root, caplog):
    dataset = UnpairedDataset(root, cache_bytes=0, **SMALL)
    before = [dataset.batch(step, 2) for step in range(8)]
    (root / "trainB" / "3.png").unlink()
    after = [dataset.batch(step, 2) for step in range(8)]
    replaced = 0
    for old, new in zip(before, after, strict=True):
        for was, now in zip(numbers(old["B_paths"]), numbers(new["B_paths"]), strict=True):
            assert now == (4 if was == 3 else was)
            replaced += was == 3
        assert torch.equal(old["A"], new["A"])
    assert replaced > 0
    assert [Path(error.path).name for error in dataset.report.bad] == ["3.png"]
    assert sum("picture left out" in record.message for record in caplog.records) == 1


def test_too_many_files_that_vanish_stop_the_run(root):
    dataset = UnpairedDataset(root, cache_bytes=0, **SMALL)
    for name in ("3.png", "5.png"):
        (root / "trainB" / name).unlink()
    with pytest.raises(DataError, match="2 files could not be read .* more than 1 %"):
        for step in range(30):
            dataset.batch(step, 2)


def test_fail_raises_on_a_file_that_goes_bad_during_the_run(root):
    dataset = UnpairedDataset(root, cache_bytes=0, on_bad="fail", serial_batches=True, **SMALL)
    (root / "trainA" / "1.png").write_bytes(b"overwritten")
    dataset.batch(0)
    with pytest.raises(BadImageError, match="1.png: is no picture"):
        dataset.batch(1)


def test_without_check_nothing_is_read_before_it_is_asked_for(root):
    (root / "trainA" / "1.png").write_bytes(b"overwritten")
    dataset = UnpairedDataset(root, check=False, on_bad="fail", serial_batches=True, **SMALL)
    assert not dataset.report.bad
    with pytest.raises(BadImageError, match="1.png"):
        dataset.batch(1)
