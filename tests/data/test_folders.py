# SPDX-License-Identifier: MIT
import os
import sys
from pathlib import Path

import pytest

from cyclegan_fast.data import list_images, scan
from cyclegan_fast.errors import BadImageError, DataError, printable

# What counts is the name here: nothing in this file reads a picture.


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in list_images(folder)[0]]


def upstream_order(folder: Path, max_size: float = float("inf")) -> list[str]:
    """data/image_folder.py followed by data/unaligned_dataset.py, as they read."""
    endings = ("jpg", "jpeg", "png", "ppm", "bmp", "tif", "tiff")
    endings = tuple(f".{e}" for e in endings) + tuple(f".{e.upper()}" for e in endings)
    images = [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name.endswith(endings)
    ]
    return sorted(images[: int(min(max_size, len(images)))])


@pytest.mark.parametrize("max_size", [float("inf"), 1, 3, 7])
def test_order_and_cut_are_upstreams(tmp_path, max_size):
    touch(
        tmp_path,
        *("b.png", "a.png", "a/z.png", "a/1.JPG", "a b/c.jpeg", "a-b/c.tif", "ab/c.TIFF", "B.bmp"),
        *("10.png", "9.png", "x.txt", "notes.md", "a/deep/er/k.ppm", ".hidden.png", "noending"),
    )
    files, problems = list_images(tmp_path, max_size)
    assert [str(path) for path in files] == upstream_order(tmp_path, max_size)
    assert problems == []


def test_letters_of_any_case_and_webp(tmp_path):
    touch(tmp_path, "a.PnG", "b.Jpeg", "c.webp", "d.gif", "e.pngx", "f.png.txt")
    assert names(tmp_path) == ["a.PnG", "b.Jpeg", "c.webp"]


def test_any_name(tmp_path):
    strange = ["a b.png", "ü ñ 猫.png", "x\ny.png", "-rf.png", "<img onerror=x>.png", "'$(x)'.png"]
    strange += ["e\u0301.png", "\u00e9.png", "n" * 251 + ".png"]  # NFD beside NFC; 255 bytes
    touch(tmp_path, *strange)
    assert sorted(names(tmp_path)) == sorted(strange)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps names that are not UTF-8")
def test_a_name_that_is_not_utf8_is_found_and_can_be_printed(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"")
    (path,), problems = list_images(tmp_path)
    assert problems == []
    assert os.fsencode(path.name) == b"\xff\xfe.png"
    printable(path).encode("utf-8")
    assert printable(path.name) == r"\udcff\udcfe.png"


def test_printable_escapes_line_breaks_and_keeps_letters():
    assert printable("x\ny\x1b[31m猫 ü.png") == r"x\ny\x1b[31m猫 ü.png"


def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    touch(data, "real/1.png", "z.png")
    touch(other, "2.png", "deep/3.png")
    (data / "aa").symlink_to(data / "real")  # sorts before the folder it leads to
    (data / "linked").symlink_to(other)
    (other / "deep" / "back").symlink_to(data)
    (other / "self").symlink_to(other)
    (data / "file.png").symlink_to(other / "2.png")
    found = ["file.png", "linked/2.png", "linked/deep/3.png", "real/1.png", "z.png"]
    assert names(data) == found


def test_what_only_has_a_pictures_name_is_reported(tmp_path):
    touch(tmp_path, "good.png", "folder.jpg/inside.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere.txt")
    os.mkfifo(tmp_path / "pipe.png")
    files, problems = list_images(tmp_path)
    assert [path.name for path in files] == ["inside.png", "good.png"]
    reasons = {Path(problem.path).name: problem.reason for problem in problems}
    assert set(reasons) == {"dangling.png", "loop.png", "pipe.png"}
    assert "leads nowhere" in reasons["dangling.png"] and "leads nowhere" in reasons["loop.png"]
    assert "pipe" in reasons["pipe.png"]
    assert all(isinstance(problem, BadImageError) for problem in problems)


def test_an_unreadable_folder_is_reported_and_the_rest_is_listed(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files, problems = list_images(tmp_path)
    assert [path.name for path in files] == ["2.png"]
    assert "a: folder cannot be read (Permission denied)" in str(problems[0])


def test_scan_finds_both_domains(tmp_path):
    touch(tmp_path, "trainA/1.png", "trainB/sub/2.jpg", "trainB/3.jpg", "testA/4.png")
    files = scan(tmp_path, "train")
    assert [path.name for path in files.A] == ["1.png"]
    assert [path.name for path in files.B] == ["3.jpg", "2.jpg"]
    assert files.problems == []
    assert len(scan(str(tmp_path), "train", max_size=1).B) == 1
    with pytest.raises(ValueError, match="max_size must be 1 or more, got 0"):
        scan(tmp_path, "train", max_size=0)


def message(root: Path, phase: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        scan(root, phase)
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


def test_missing_folder_shows_what_is_there_and_the_layout(tmp_path):
    touch(tmp_path, "trainA/1.png", "zebras/1.png", "zebras/2.png", "loose.png")
    text = message(tmp_path)
    assert f"got {tmp_path} without trainB" in text
    assert "trainA/ (1 pictures)" in text and "zebras/ (2 pictures)" in text
    assert "1 pictures beside them" in text
    assert "trainA/   pictures of the first domain" in text


@pytest.mark.parametrize("there", ["TrainB", "train_B", "train-b", "B", "b", "domainB", "train/B"])
def test_the_likeliest_other_name_is_guessed(tmp_path, there):
    touch(tmp_path, "trainA/1.png", f"{there}/1.png")
    assert f'mv "{tmp_path / there}" "{tmp_path / "trainB"}"' in message(tmp_path)


def test_two_folders_of_other_names_are_offered_as_the_domains(tmp_path):
    touch(tmp_path, "horse/1.png", "zebra/1.png")
    text = message(tmp_path)
    assert f'If horse is domain A: mv "{tmp_path / "horse"}" "{tmp_path / "trainA"}"' in text
    assert f'If zebra is domain B: mv "{tmp_path / "zebra"}" "{tmp_path / "trainB"}"' in text


def test_one_level_too_high_or_too_deep(tmp_path):
    root = touch(tmp_path / "horse2zebra", "trainA/1.png", "trainB/1.png")
    assert f"Did you mean {root}?" in message(tmp_path)
    assert f"Did you mean its parent, {root}?" in message(root / "trainA")


def test_dataroot_that_does_not_exist_or_is_a_file(tmp_path):
    touch(tmp_path, "horse2zebra/trainA/1.png", "file.zip")
    text = message(tmp_path / "horse2zebr")
    assert "does not exist" in text and f"Did you mean {tmp_path / 'horse2zebra'}?" in text
    assert f"In {tmp_path} there is: horse2zebra." in message(tmp_path / "quite" / "else")
    assert "It is a file." in message(tmp_path / "file.zip")


def test_empty_folder_says_what_is_in_it(tmp_path):
    touch(tmp_path, "trainA/1.png", "trainB/a.gif", "trainB/b.txt")
    (tmp_path / "trainB" / "c.png").symlink_to("nowhere")
    text = message(tmp_path)
    assert "trainB holds no picture. Found there: a.gif, b.txt, c.png." in text
    assert ".webp" in text and "link leads nowhere" in text
    (tmp_path / "testA").mkdir()
    (tmp_path / "testB").mkdir()
    assert "testA holds no picture. Found there: nothing." in message(tmp_path, "test")
