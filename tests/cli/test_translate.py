# SPDX-License-Identifier: MIT
"""translate: every picture once, under its name, of its size, whole, and never over another."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from small import generator, picture

from cyclegan_fast.io import tree
from cyclegan_fast.io.architecture import Architecture
from cyclegan_fast.io.translation import fitting_size, mirror_indices, translate_tensor

NAMES = [
    "plain.png",
    "with space.JPG",
    "sub/plain.png",
    "sub/deep/ünï-日本.jpeg",
    "sub/--flag.png",
    "-o.png",
    "a.b.c.tif",
    "q#?%41&<b>.webp",
    "new\nline.bmp",
    "..dots..ppm",
    "same.png",
    "same.jpg",
]


def tree_of(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


class AtOnce:
    """A translator for `tree.run` of a function of uint8 [N, H, W, C], called as it is begun."""

    def __init__(self, function):
        self.function = function

    def fitting(self, height, width):
        return height, width

    def start(self, group):
        made = list(self.function(np.stack(group)))
        return lambda: made


def plainly(net, image):
    """What plain PyTorch makes of a picture whose sides are multiples of four."""
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return net(x)[0]


def test_a_tree_with_odd_names_keeps_names_tree_and_sizes(tmp_path, run):
    generator(tmp_path / "net.pth")
    for seed, name in enumerate(NAMES):
        picture(tmp_path / "in" / name, 17 + seed, 33 - seed, seed=seed)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    done = run("translate", tmp_path / "net.pth", tmp_path / "in", "-o", tmp_path / "out")
    assert done.status == 0, done.err
    assert f"{len(NAMES)} written" in done.out and "images/s" in done.out
    assert tree_of(tmp_path / "out") == sorted(NAMES)
    for name in NAMES:
        before, after = (pixels(tmp_path / side / name) for side in ("in", "out"))
        assert after.shape == before.shape
        assert np.abs(after.astype(int) - before).mean() > 5
    assert sorted(os.listdir(tmp_path)) == ["in", "net.pth", "out"]


def test_png_results_are_the_plain_networks_rounded(tmp_path, run):
    net = generator(tmp_path / "net.pth")
    names = ["a.png", "b.png", "c.png"]
    for seed, name in enumerate(names):
        picture(tmp_path / "in" / name, 32, 24, seed=seed)
    options = ["--batch_size", 2, "--device", "cpu", "--precision", "fp32"]
    run("translate", tmp_path / "net.pth", tmp_path / "in", "-o", tmp_path / "out", *options)
    for name in names:
        exact = plainly(net, Image.open(tmp_path / "in" / name)).permute(1, 2, 0).numpy()
        exact = (exact + 1) * 127.5
        # A rounding of the exact value, but for ties within the arithmetic's error.
        assert np.abs(pixels(tmp_path / "out" / name) - exact).max() < 0.5 + 1e-2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (5, 8), (8, 8), (13, 30)])
def test_any_size_comes_back_as_it_was(size):
    net = torch.nn.Identity()
    x = torch.randn(1, 3, *size)
    for architecture in (resnet(), Architecture("unet", 3, 3, 4, 5, "instance")):
        assert torch.equal(translate_tensor(net, x, architecture), x)


def resnet():
    return Architecture("resnet", 3, 3, 4, 2, "instance")


def test_a_padded_picture_is_the_middle_of_its_mirror_image():
    """Mirrored by hand with numpy, translated, cut: the same."""
    net = torch.nn.Conv2d(3, 3, 3, padding=1)
    x = torch.randn(1, 3, 5, 6)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 2), (1, 1)), mode="reflect")
    with torch.no_grad():
        expected = net(torch.from_numpy(padded))[..., 1:6, 1:7]
        assert torch.equal(translate_tensor(net, x, resnet()), expected)


def test_mirror_indices_go_back_and_forth():
    assert mirror_indices(3, 9).tolist() == [1, 2, 1, 0, 1, 2, 1, 0, 1]
    assert mirror_indices(1, 4).tolist() == [0, 0, 0, 0]
    assert mirror_indices(4, 4).tolist() == [0, 1, 2, 3]
    for size, target in ((2, 31), (7, 50), (5, 8)):
        before = (target - size) // 2
        by_numpy = np.pad(np.arange(size), (before, target - size - before), mode="reflect")
        assert mirror_indices(size, target).tolist() == by_numpy.tolist()


def test_sizes_that_fit_are_not_touched():
    assert [fitting_size(n, resnet()) for n in (1, 8, 9, 256)] == [8, 8, 12, 256]
    unet = Architecture("unet", 3, 3, 4, 8, "instance")
    assert [fitting_size(n, unet) for n in (1, 256, 257)] == [256, 256, 512]


def test_one_channel_stays_one_channel(tmp_path, run):
    generator(tmp_path / "net.pth", 1, 1)
    picture(tmp_path / "in" / "grey.png", channels=1)
    picture(tmp_path / "in" / "colour.png", channels=3)
    assert (
        run("translate", tmp_path / "net.pth", tmp_path / "in", "-o", tmp_path / "out").status == 0
    )
    for name in ("grey.png", "colour.png"):
        assert pixels(tmp_path / "out" / name).shape == (24, 20)


def test_results_that_are_there_are_kept_unless_asked(tmp_path, run):
    generator(tmp_path / "net.pth")
    for name in ("a.png", "b.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    command = ["translate", tmp_path / "net.pth", tmp_path / "in", "-o", tmp_path / "out"]
    first = run(*command)
    assert first.status == 0 and "1 written, 1 there already" in first.out
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
    stamp = (tmp_path / "out" / "b.png").stat().st_mtime_ns
    again = run(*command)
    assert "0 written, 2 there already" in again.out
    assert (tmp_path / "out" / "b.png").stat().st_mtime_ns == stamp
    forced = run(*command, "--overwrite")
    assert "2 written" in forced.out
    assert pixels(tmp_path / "out" / "a.png").shape == (24, 20, 3)


def test_bad_pictures_are_named_and_skipped(tmp_path, run):
    generator(tmp_path / "net.pth")
    good = picture(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "cut.png").write_bytes(good.read_bytes()[:200])
    (tmp_path / "in" / "text.jpg").write_text("hello")
    (tmp_path / "in" / "empty.png").touch()
    (tmp_path / "in" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    done = run("translate", tmp_path / "net.pth", tmp_path / "in", "-o", tmp_path / "out")
    assert done.status == 1
    assert "1 written, 4 skipped" in done.out
    for name in ("cut.png", "text.jpg", "empty.png", "dangling.png"):
        assert f"{name}: " in done.err
    assert tree_of(tmp_path / "out") == ["good.png"]


def test_a_single_picture_goes_where_it_is_told(tmp_path, run):
    generator(tmp_path / "net.pth")
    source = picture(tmp_path / "photo.png")
    command = ["translate", tmp_path / "net.pth", source, "-o"]
    assert run(*command, tmp_path / "folder").status == 0
    assert run(*command, tmp_path / "deep" / "named.jpg").status == 0
    assert pixels(tmp_path / "folder" / "photo.png").shape == (24, 20, 3)
    assert pixels(tmp_path / "deep" / "named.jpg").shape == (24, 20, 3)
    itself = run(*command, source, "--overwrite")
    assert itself.status == 2 and "replace the picture itself" in itself.err


def test_one_format_for_all_never_joins_two_pictures(tmp_path, run):
    generator(tmp_path / "net.pth")
    for name in ("a.png", "a.jpg", "b.jpg", "sub/a.jpg"):
        picture(tmp_path / "in" / name)
    run(
        "translate",
        tmp_path / "net.pth",
        tmp_path / "in",
        "-o",
        tmp_path / "out",
        "--format",
        "png",
    )
    assert tree_of(tmp_path / "out") == ["a.jpg.png", "a.png", "b.png", "sub/a.png"]


def test_results_among_the_pictures_are_refused(tmp_path, run):
    generator(tmp_path / "net.pth")
    picture(tmp_path / "in" / "a.png")
    for out in (tmp_path / "in", tmp_path / "in" / "out"):
        done = run("translate", tmp_path / "net.pth", tmp_path / "in", "-o", out)
        assert done.status == 2 and "must lie outside" in done.err
    assert tree_of(tmp_path / "in") == ["a.png"]


def test_a_stopped_run_leaves_whole_pictures_and_goes_on(tmp_path):
    """Stopped by an error in the middle: every file there is whole, the rest comes next time."""
    for index in range(9):
        picture(tmp_path / "in" / f"{index}.png", seed=index)
    jobs, _ = tree.plan(tmp_path / "in", tmp_path / "out")
    calls = []

    def dying(batch):
        calls.append(len(batch))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return 255 - batch

    with pytest.raises(KeyboardInterrupt):
        tree.run(AtOnce(dying), jobs, 3)
    done = tree_of(tmp_path / "out")
    assert 0 < len(done) < 9
    for name in done:
        assert np.array_equal(pixels(tmp_path / "out" / name), 255 - pixels(tmp_path / "in" / name))
    (tmp_path / "out" / ".part-0123456789abcdef").write_bytes(b"left by a kill")
    summary = tree.run(AtOnce(lambda batch: 255 - batch), jobs, 3)
    assert (summary.written, summary.kept) == (9 - len(done), len(done))
    assert len([name for name in tree_of(tmp_path / "out") if "part" not in name]) == 9


def test_batches_hold_pictures_of_one_size_and_lose_none(tmp_path):
    sizes = [(8, 8), (8, 12), (8, 8), (8, 8), (12, 8), (8, 12), (8, 8), (9, 9)] * 3
    for index, (height, width) in enumerate(sizes):
        picture(tmp_path / "in" / f"{index:02}.png", height, width, seed=index)
    jobs, _ = tree.plan(tmp_path / "in", tmp_path / "out")
    batches = []

    def invert(batch):
        batches.append(batch.shape)
        return 255 - batch

    summary = tree.run(AtOnce(invert), jobs, 3, batch_size=4)
    assert summary.written == len(sizes) and not summary.failed
    assert max(shape[0] for shape in batches) == 4
    assert len(batches) < len(sizes)
    for job in jobs:
        assert np.array_equal(pixels(job.target), 255 - pixels(job.source))


def test_a_picture_too_large_for_the_gpu_is_named_and_the_rest_goes_on(tmp_path):
    for index in range(4):
        picture(tmp_path / "in" / f"{index}.png", 8, 8 if index else 16)
    jobs, _ = tree.plan(tmp_path / "in", tmp_path / "out")

    def small_gpu(batch):
        if batch.shape[0] * batch.shape[2] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch

    summary = tree.run(AtOnce(small_gpu), jobs, 3, batch_size=4)
    assert summary.written == 3
    assert [error.path for error in summary.failed] == [str(tmp_path / "in" / "0.png")]
    assert "--device cpu" in summary.failed[0].reason
