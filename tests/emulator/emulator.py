# SPDX-License-Identifier: MIT
"""Build the CUDA kernels' source for the CPU, and load it as torch.ops.cyclegan_fast_emulated.

The kernels (csrc/ops/*.cu) and the host code that launches them (csrc/ops/*_cuda.cpp) are compiled
as they are; cuda_emulator.h stands in for CUDA, torch_side.h for the device. NVIDIA's headers are
needed, no GPU and no driver.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
SCHEDULES = ("forward", "reverse", "random")
KERNEL = ("-x", "c++", "-include", "cuda_emulator.h")
# Set in the environment of a process that is to load the library built with sanitizers.
SANITIZED = "CYCLEGAN_FAST_TEST_SANITIZED"
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def why_not() -> str | None:
    """Return why the emulator cannot be built here, or None."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return "its fibers are written for Linux on x86-64"
    if shutil.which("g++") is None:
        return "there is no g++"
    if cuda_headers() is None:
        return "NVIDIA's cuda_fp16.h was not found beside nvcc, in CUDA_HOME or in site-packages"
    return None


@cache
def cuda_headers() -> Path | None:
    """Return the folder of cuda_fp16.h."""
    nvcc = shutil.which("nvcc")
    beside = nvcc and Path(nvcc).resolve().parents[1]
    homes = [os.environ.get("CUDA_HOME"), beside, "/usr/local/cuda"]
    folders = [Path(home) / "include" for home in homes if home]
    folders += sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/include"))
    return next((folder for folder in folders if (folder / "cuda_fp16.h").exists()), None)


def build(sanitize: bool = False) -> Path:
    """Compile the ops, unless that was done, and return the library's path."""
    kernels = sorted(CSRC.glob("ops/*.cu"))
    host = [CSRC / "registration.cpp", *sorted(CSRC.glob("ops/*_cuda.cpp"))]
    sources = {source: KERNEL for source in kernels}
    sources |= {source: ("-include", "torch_side.h") for source in host}
    return library("ops", sources | {CSRC / "common/isa.cpp": ()}, sanitize)


def library(name: str, sources: dict[Path, tuple[str, ...]], sanitize: bool) -> Path:
    """Compile sources, each with options of its own, and the emulator into one library."""
    sources = sources | {HERE / "fibers.cpp": (), HERE / "runtime.cpp": ()}
    torch_dir = Path(torch.__file__).parent
    # Loaded by this PyTorch alone, so its own version is the one to build for.
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    flags = SANITIZE if sanitize else ("-O2",)
    common = [
        "g++", "-std=c++20", "-fPIC", "-w", *flags,
        f"-I{CSRC}", f"-I{HERE}", f"-I{torch_dir / 'include'}",
        f"-I{torch_dir / 'include/torch/csrc/api/include'}", "-isystem", str(cuda_headers()),
        f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000",
    ]  # fmt: skip
    digest = hashlib.sha256(repr((common, torch.__version__)).encode())
    for path in sorted([*CSRC.rglob("*.*"), *HERE.glob("*.h"), *HERE.glob("*.c*")]):
        digest.update(path.read_bytes())
    folder = ROOT / "build" / f"emulator-{digest.hexdigest()[:16]}"
    made = folder / f"{name}.so"
    if made.exists():
        return made
    folder.mkdir(parents=True, exist_ok=True)

    def compiled(source: Path) -> str:
        unit = folder / f"{name}-{source.stem}-{source.suffix[1:]}-{os.getpid()}.o"
        _run([*common, *sources[source], "-c", str(source), "-o", str(unit)])
        return str(unit)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        units = list(pool.map(compiled, sources))
    part = folder / f"{name}-{os.getpid()}.so"
    torch_lib = torch_dir / "lib"
    libraries = [f"-L{torch_lib}", f"-Wl,-rpath,{torch_lib}", "-ltorch", "-ltorch_cpu"]
    _run(["g++", "-shared", *flags, *units, *libraries, "-o", str(part)])
    for unit in units:
        Path(unit).unlink()
    part.replace(made)  # whole or not at all: other processes may be building the same
    return made


def sanitizer_environment() -> dict[str, str]:
    """Return what a process needs in its environment to load the library built with sanitizers."""

    def runtime(name: str) -> str:
        done = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True)
        return done.stdout.strip()

    return {
        SANITIZED: "1",
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        # Python itself never frees all, and fibers confuse the fake stacks of this check.
        "ASAN_OPTIONS": "detect_leaks=0,detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")


@cache
def load(sanitize: bool = False):
    """Return the namespace of the emulated ops and a function that sets the schedule."""
    path = str(build(sanitize))
    torch.ops.load_library(path)
    functions = ctypes.CDLL(path)

    def set_schedule(name: str, seed: int = 1) -> None:
        functions.cuda_emulator_set_schedule(SCHEDULES.index(name), seed)

    return torch.ops.cyclegan_fast_emulated, set_schedule
