# SPDX-License-Identifier: MIT
"""Break the kernels in one place at a time, and see that the tests notice every time.

    python tests/mutants/run.py [--only TEXT] [--new] [--list]

A mutant of a CUDA kernel is a copy of csrc with one change, executed by test_emulated_kernels.py,
or by the tests of Hopper's; one of a Triton kernel a copy of the package, whose kernels tests/ops
interprets. Exit code 1 if one survives. What was run is renewed in benchmarks/results/mutants.json,
mutant by mutant.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_mutants
import hopper_mutants
import triton_mutants
from mutant import Mutant

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
RECORD = ROOT / "benchmarks" / "results" / "mutants.json"
MUTANTS = {
    "cuda": cuda_mutants.MUTANTS + hopper_mutants.MUTANTS,
    "triton": triton_mutants.MUTANTS,
}
# In the name of a file, the narrowest first: the test_emulated_<name>.py that alone can see it.
HOPPER = {"hopper_weight": ["hopper_weight"], "hopper": ["hopper", "hopper_fold"]}
# The tests that can see a file at all, to be done sooner.
CUDA_TESTS = {
    "instance": "norm or derivative",
    "reflect": "pad2d",
    "loss.cuh": "loss",
    "lsgan": "loss",
    "generator": "generator",
    "pool": "pool",
    "augment.cu": "augment",
}
# By how a file's name begins, or its folder: files of tests, and what of test_triton_tiles.py.
TRITON_TESTS = {
    "adam": (["adam"], ""),
    "augment": (["augment", "far_strides"], ""),
    "generator_loss": (["generator_loss"], ""),
    "instance_norm_act": (
        ["given_statistics", "norm_beside_convolution", "instance_norm_act", "far_strides"],
        "test_norm",
    ),
    "l1_loss": (["losses"], "loss"),
    "lsgan_loss": (["losses"], "loss"),
    "_triton_loss.py": (["losses"], "loss"),
    "pool_exchange": (["pool_exchange", "far_strides"], ""),
    "reflect_conv2d": (
        ["conv_far_implicit", "conv_implicit", "conv_transposed", "reflect_conv2d", "far_strides"]
        + ["conv_on_load"],
        "convolution or splits",
    ),
    "triton_load": (["conv_far_implicit", "conv_on_load", "conv_groups"], ""),
    "triton_weight": (
        ["conv_far_implicit", "conv_groups", "conv_implicit", "conv_on_load"],
        "convolution or splits",
    ),
    "triton_implicit_tiles": (["conv_groups"], ""),
    "triton_between": (["conv_between"], ""),
    "triton_rows": (["conv_far", "conv_rows"], ""),
    "triton_factored": (["conv_far", "conv_factored"], ""),
    "reflect_pad2d": (["reflect_pad2d"], "test_pad"),
    "_triton.py": (["reflect_pad2d", "losses", "given_statistics", "generator_loss"], "test_"),
}


def main() -> int:
    """Run the mutants and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose language, file or fault holds it")
    parser.add_argument("--new", action="store_true", help="mutants that are not on record")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    on_record = {_key(row) for row in _known()} if options.new else set()
    chosen = [
        (language, mutant)
        for language, mutants in MUTANTS.items()
        for mutant in mutants
        if options.only in _title(language, mutant)
        and (language, mutant.file, mutant.fault) not in on_record
    ]
    if options.list:
        print(*(_title(*each) for each in chosen), sep="\n")
        return 0
    began = time.perf_counter()
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # The unchanged kernels, once for each selection of tests.
        unchanged = {_tests(*each): (each[0], each[1].file) for each in chosen}.values()
        for failure in pool.map(lambda each: _first_failure(each[0], None, each[1]), unchanged):
            if failure is not None:
                print(f"the unchanged kernels fail: {failure}")
                return 1
        killers = pool.map(lambda each: _first_failure(*each, each[1].file), chosen)
        for (language, mutant), killer in zip(chosen, killers, strict=True):
            row = {"language": language, "file": mutant.file, "fault": mutant.fault}
            rows.append(row | {"killed_by": killer})
            print(f"{'killed' if killer else 'SURVIVES':9} {_title(language, mutant)}", flush=True)
            _record(rows[-1:])
    survivors = [row for row in rows if row["killed_by"] is None]
    seconds = time.perf_counter() - began
    kept, existing = _record([])
    print(f"{len(rows) - len(survivors)} of {len(rows)} killed, {seconds:.0f} s")
    print(f"{kept} of {existing} mutants on record in {RECORD}")
    return 1 if survivors else 0


def _known() -> list[dict[str, str | None]]:
    return json.loads(RECORD.read_text())["mutants"] if RECORD.exists() else []


def _key(row: dict[str, str | None]) -> tuple[str | None, ...]:
    return row["language"], row["file"], row["fault"]


def _record(rows: list[dict[str, str | None]]) -> tuple[int, int]:
    """Renew the rows of the mutants that were run, and drop those of mutants that are no more.

    Returns how many are on record, and how many there are.
    """
    by_key = {_key(row): row for row in [*_known(), *rows]}
    existing = [(x, m.file, m.fault) for x, mutants in MUTANTS.items() for m in mutants]
    kept = [by_key[each] for each in existing if each in by_key]
    RECORD.write_text(json.dumps({"mutants": kept}, indent=1) + "\n")
    return len(kept), len(existing)


def _title(language: str, mutant: Mutant) -> str:
    return f"{language} {mutant.file}: {mutant.fault}"


def _tests(language: str, mutant: Mutant) -> tuple[str, str]:
    """Return what decides which tests are run: the key of CUDA_TESTS or of TRITON_TESTS."""
    if language == "triton":
        return language, _triton_key(mutant.file)
    return language, _cuda_key(mutant.file)


def _cuda_key(file: str) -> str:
    key = Path(file).name.partition("_")[0]
    of_hopper = (name for name in HOPPER if name in file)
    return next(of_hopper, key if key in CUDA_TESTS else "")


def _triton_key(file: str) -> str:
    path = Path(file)
    return next((key for key in TRITON_TESTS if path.name.startswith(key)), path.parts[0])


def _first_failure(language: str, mutant: Mutant | None, file: str) -> str | None:
    """Return what killed the mutant of a file, or None."""
    with tempfile.TemporaryDirectory() as folder:
        run = _run_cuda if language == "cuda" else _run_triton
        done = run(Path(folder), mutant, file)
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    named = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not named:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return named[0].split(" ", 1)[1].split(" - ")[0].removeprefix("tests/")


def _run_cuda(folder: Path, mutant: Mutant | None, file: str) -> subprocess.CompletedProcess[str]:
    csrc = folder / "csrc"
    shutil.copytree(ROOT / "csrc", csrc)
    _change(csrc, mutant)
    key = _cuda_key(file)
    names = HOPPER.get(key, ["kernels"])
    tests = [TESTS / "emulator" / f"test_emulated_{name}.py" for name in names]
    return _pytest([*tests, "-k", CUDA_TESTS.get(key, "test")], CYCLEGAN_FAST_TEST_CSRC=str(csrc))


def _run_triton(folder: Path, mutant: Mutant | None, file: str) -> subprocess.CompletedProcess[str]:
    package = folder / "cyclegan_fast"
    shutil.copytree(ROOT / "cyclegan_fast", package)
    _change(package / "ops", mutant)
    names, tiles = TRITON_TESTS[_triton_key(file)]
    tests = [TESTS / "ops" / f"test_{name}.py" for name in names]
    chosen = "triton and not tiles or conv_ or beside_convolution"  # which launch by themselves
    if tiles:
        tests.append(TESTS / "ops" / "test_triton_tiles.py")
        chosen += f" or tiles and ({tiles})"
    # Before the checkout and before what is installed.
    return _pytest([*tests, "-k", chosen], PYTHONPATH=str(folder), PYTHONSAFEPATH="1")


def _change(folder: Path, mutant: Mutant | None) -> None:
    if mutant is None:
        return
    path = folder / mutant.file
    text = path.read_text()
    if text.count(mutant.right) != 1:
        raise ValueError(
            f"mutants: {mutant.file} must hold {mutant.right!r} once, and holds it "
            f"{text.count(mutant.right)} times. The kernel changed: change the mutant too."
        )
    path.write_text(text.replace(mutant.right, mutant.wrong))


def _pytest(tests: list[object], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
        + ["--show-capture=no", *map(str, tests)],
        cwd=ROOT, env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
