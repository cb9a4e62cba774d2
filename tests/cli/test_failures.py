# SPDX-License-Identifier: MIT
"""Bad input: what, why and what to do in a few lines, an exit status, and nothing lost."""

import errno
import os
import stat
import subprocess
import sys

import pytest
import torch
from small import TINY, generator, picture

from cyclegan_fast.cli.failures import explain_os_error
from cyclegan_fast.training import durable


def train(root, tmp_path, *more):
    place = ["--dataroot", root, "--checkpoints_dir", tmp_path / "runs", "--name", "run"]
    return ["train", *place, *TINY, "--max_steps", 2, "--evaluate", 0, *more]


def refused(done, status, *said):
    """A message without a traceback that says all this, and the status."""
    assert done.status == status, (done.out, done.err)
    assert "Traceback" not in done.err
    for part in said:
        assert part in done.err, (part, done.err)


def test_no_dataroot(run):
    refused(run("train"), 2, "--dataroot is missing", "trainA/", "cyclegan-fast demo")


def test_missing_folder_shows_what_was_found_and_the_layout(domains, tmp_path, run):
    (domains / "trainA").rename(domains / "A")
    done = run(*train(domains, tmp_path))
    refused(done, 2, "without trainA", "A/ (4 pictures)", "Expected layout", "mv ")
    refused(run(*train(tmp_path / "dat", tmp_path)), 2, "does not exist", "Did you mean")
    assert not (tmp_path / "runs").exists()


def test_crop_larger_than_load_gives_the_values_to_type(domains, tmp_path, run):
    done = run(*train(domains, tmp_path, "--load_size", 28))
    refused(done, 2, "crop_size must be at most load_size", "--load_size 32", "--crop_size 28")


def test_a_domain_with_one_picture(domains, tmp_path, run):
    for path in sorted((domains / "trainB").iterdir())[1:]:
        path.unlink()
    refused(run(*train(domains, tmp_path)), 2, "trainB holds one usable picture", "Add pictures")


def test_a_domain_without_a_readable_picture_names_every_file(domains, tmp_path, run):
    for path in (domains / "trainB").iterdir():
        path.write_bytes(b"no")
    done = run(*train(domains, tmp_path))
    refused(done, 2, *(f"trainB/{index}.png" for index in range(4)))


def test_pictures_smaller_than_the_crop(domains, tmp_path, run):
    picture(domains / "trainA" / "0.png", 16, 20)
    more = ["--preprocess", "crop"]
    refused(run(*train(domains, tmp_path, *more)), 2, "1 of 4 pictures are too small", "0.png")


def test_pictures_of_several_sizes_in_one_batch(domains, tmp_path, run):
    picture(domains / "trainA" / "0.png", 16, 20)
    more = ["--preprocess", "none", "--batch_size", 4]
    done = run(*train(domains, tmp_path, *more))
    refused(done, 2, "must have one size", "--batch_size 1", "0.png")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--netG", "unet_128", "multiple of 128"),
        ("--device", "gpu", "cuda:N"),
        ("--lr", "-1", "above 0"),
        ("--batch_size", "0", "1 or more"),
        ("--name", "a/b", "--checkpoints_dir"),
        ("--evaluate", "-1", "0 or more"),
        ("--input_nc", "1", "--lambda_identity 0"),
    ],
)
def test_values_that_cannot_be_trained_with(domains, tmp_path, run, option, value, said):
    refused(run(*train(domains, tmp_path, option, value)), 2, said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_gpu_that_is_not_there(domains, tmp_path, run):
    refused(run(*train(domains, tmp_path, "--device", "cuda")), 2, "--device cpu")
    picture(tmp_path / "a.png")
    generator(tmp_path / "net.pth")
    command = ["translate", tmp_path / "net.pth", tmp_path / "a.png", "-o", tmp_path / "out"]
    refused(run(*command, "--device", "cuda"), 2, "--device cpu")


def test_a_run_is_not_written_over(domains, tmp_path, run):
    assert run(*train(domains, tmp_path)).status == 0
    folder = tmp_path / "runs" / "run"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    refused(run(*train(domains, tmp_path)), 1, "holds a run of 2 steps", "--continue_train")
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_resume_without_a_run(tmp_path, run):
    done = run("train", "--resume", "--checkpoints_dir", tmp_path)
    refused(done, 2, "no run with a save", "--name")


def test_resume_with_other_networks(domains, tmp_path, run):
    assert run(*train(domains, tmp_path)).status == 0
    done = run(*train(domains, tmp_path, "--resume", "--ngf", 8))
    refused(done, 1, "holds ngf 4", "asks for ngf 8", "--ngf 4")


def full_disk(monkeypatch, name):
    """Every write to a file whose path holds `name` finds the disk full, from now on."""
    real = os.open

    def open_(path, flags, *more, **options):
        if name in os.fspath(path) and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        return real(path, flags, *more, **options)

    monkeypatch.setattr(durable.os, "open", open_)


def test_a_full_disk_leaves_the_save_before(domains, tmp_path, run, monkeypatch):
    assert run(*train(domains, tmp_path)).status == 0
    saved = tmp_path / "runs" / "run" / "step-00000002"
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    with monkeypatch.context() as patch:
        full_disk(patch, "step-00000004")
        done = run(*train(domains, tmp_path, "--resume", "--max_steps", 4))
    refused(done, 1, "No space left", "step-00000002, is untouched", "Make room")
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    again = run(*train(domains, tmp_path, "--resume", "--max_steps", 4))
    assert again.status == 0 and "resumed  at step 2" in again.out


def test_a_full_disk_while_translating(tmp_path, run, monkeypatch):
    from cyclegan_fast.io import pictures

    generator(tmp_path / "net.pth")
    for index in range(3):
        picture(tmp_path / "in" / f"{index}.png")
    real, written = pictures.write_bytes, []

    def write_bytes(path, data, overwrite=True):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        return real(path, data, overwrite)

    monkeypatch.setattr(pictures, "write_bytes", write_bytes)
    done = run("translate", tmp_path / "net.pth", tmp_path / "in", "-o", tmp_path / "out")
    refused(done, 1, "the disk is full", "MB free", "run the same command again")
    assert [p for p in (tmp_path / "out").iterdir()] == written


def test_a_folder_that_cannot_be_written(tmp_path, run, domains):
    (tmp_path / "file").touch()
    picture(tmp_path / "in" / "a.png")
    generator(tmp_path / "net.pth")
    command = ["translate", tmp_path / "net.pth", tmp_path / "in", "-o"]
    refused(run(*command, tmp_path / "file"), 2, "must be a folder")
    refused(run(*command, tmp_path / "file" / "deeper"), 1, "file", "Not a directory")
    below = tmp_path / "file" / "runs"
    done = run(*train(domains, tmp_path, "--checkpoints_dir", below))
    refused(done, 1, "cannot make the run's folder", "--checkpoints_dir")
    if os.geteuid() != 0:  # nothing is forbidden to root
        (tmp_path / "locked").mkdir()
        (tmp_path / "locked").chmod(stat.S_IRUSR | stat.S_IXUSR)
        refused(run(*command, tmp_path / "locked" / "out"), 1, "Permission denied", "rights")


def test_permission_denied_is_explained():
    denied = OSError(errno.EACCES, os.strerror(errno.EACCES), "/root/out")
    assert explain_os_error(denied) == (
        "/root/out: Permission denied. Choose a folder you may write to, or change its rights."
    )


def test_translate_says_what_is_wrong_with_its_arguments(tmp_path, run):
    generator(tmp_path / "net.pth")
    picture(tmp_path / "in" / "a.png")
    out = ["-o", tmp_path / "out"]
    model, source = tmp_path / "net.pth", tmp_path / "in"
    refused(run("translate", model, tmp_path / "none", *out), 2, "no such picture or folder")
    refused(run("translate", tmp_path / "none.pth", source, *out), 1, "no such file or folder")
    (tmp_path / "empty").mkdir()
    refused(run("translate", model, tmp_path / "empty", *out), 2, "holds no picture")
    refused(run("translate", tmp_path / "empty", source, *out), 1, "no generator for AtoB")
    refused(run("translate", model, source, *out, "--batch_size", 0), 2, "1 or more")
    refused(run("translate", model, source), 2, "-o")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    done = run("translate", tmp_path / "other.pth", source, *out)
    refused(done, 1, "2 tensors such as weight (2, 2)", "expected was a generator")
    (tmp_path / "text.pth").write_text("not weights")
    refused(run("translate", tmp_path / "text.pth", source, *out), 1, "no file of torch.save")
    assert not (tmp_path / "out").exists()


def test_a_reader_that_leaves_and_a_terminal_without_arrows(tmp_path):
    """`| head` ends the command quietly; letters that a terminal lacks are replaced."""
    picture(tmp_path / "→.png")
    generator(tmp_path / "net.pth")
    words = ["translate", tmp_path / "net.pth", tmp_path / "→.png", "-o", tmp_path / "out"]
    program = "import os, sys; from cyclegan_fast.cli import main; "
    program += "os.dup2(int(sys.argv.pop(1)), 1); sys.exit(main())"
    reader, writer = os.pipe()
    os.close(reader)
    for target, status in ((str(writer), 141), ("1", 0)):
        done = subprocess.run(
            [sys.executable, "-c", program, target, *map(str, words), "--overwrite"],
            capture_output=True, text=True, pass_fds=[writer],
            env={**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (status, "")
    assert "?.png" in done.stdout
    os.close(writer)


def test_traceback_shows_what_happened(tmp_path):
    from cyclegan_fast.cli import main
    from cyclegan_fast.errors import WeightsError

    picture(tmp_path / "a.png")
    words = ["translate", tmp_path / "none.pth", tmp_path / "a.png", "-o", tmp_path / "out"]
    with pytest.raises(WeightsError):
        main([*map(str, words), "--traceback"])
