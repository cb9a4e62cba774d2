# SPDX-License-Identifier: MIT
"""The build's own rules: GPU architectures, and kernels that keep their functions to themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
BESIDE_PYTHON = Path(sys.executable).parent / "cmake"
CMAKE = str(BESIDE_PYTHON) if BESIDE_PYTHON.exists() else shutil.which("cmake")


def cmake(script: str, **values: str) -> subprocess.CompletedProcess[str]:
    definitions = [f"-D{name}={value}" for name, value in values.items()]
    command = [CMAKE, *definitions, "-P", str(CSRC / script)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("asked", "nvcc", "expected"),
    [
        ("", "13.0.88", "75-real;80-real;86-real;89-real;90-real;100-real;120"),
        ("", "12.6.20", "75-real;80-real;86-real;89-real;90"),
        ("9.0", "13.0", "90-real"),
        ("9.0a", "13.0", "90a-real"),
        ("8.6+PTX", "13.0", "86"),
        ("8.0;9.0", "13.0", "80-real;90-real"),
        ("8.0 9.0a  12.0+PTX", "13.0", "80-real;90a-real;120"),
        ("10.0f", "13.0", "100f-real"),
        ("8.0 8.0", "13.0", "80-real"),
    ],
)
def test_architectures(asked, nvcc, expected):
    result = cmake("cuda_archs.cmake", TORCH_CUDA_ARCH_LIST=asked, NVCC_VERSION=nvcc)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == expected


@pytest.mark.parametrize("asked", ["sm_90", "90", "Hopper", "9.0+ptx"])
def test_a_wrong_architecture_is_named(asked):
    result = cmake("cuda_archs.cmake", TORCH_CUDA_ARCH_LIST=asked, NVCC_VERSION="13.0")
    assert result.returncode != 0
    message = " ".join(result.stderr.split())
    assert f"an entry must be like 8.6, 9.0a or 12.0+PTX, got '{asked}'" in message


@pytest.mark.parametrize(
    ("source", "clean"),
    [
        ("namespace { inline int f(int x) { return x + 1; } } int g(int x) { return f(x); }", True),
        ("inline int f(int x) { return x + 1; } auto g = f;", False),
        ("template <class T> struct S { static int count; }; template <class T> int S<T>::count;"
         " int* g = &S<int>::count;", False),
    ],
)  # fmt: skip
def test_weak_symbols_stop_the_build(tmp_path, source, clean):
    (tmp_path / "unit.cpp").write_text(source)
    objects = []
    for name in ("first.o", "second.o"):
        objects.append(str(tmp_path / name))
        subprocess.run(["c++", "-c", "-o", objects[-1], str(tmp_path / "unit.cpp")], check=True)
    result = cmake("no_weak_symbols.cmake", NM="nm", OBJECTS=",".join(objects))
    assert (result.returncode == 0) == clean, result.stderr
