# SPDX-License-Identifier: MIT
"""Build the CUDA kernels' source for the CPU, and load it as torch.ops.cyclegan_fast_emulated_*.

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
# Another source tree to test, a mutant say.
CSRC = Path(os.environ.get("CYCLEGAN_FAST_TEST_CSRC", ROOT / "csrc"))
NAMESPACE = "cyclegan_fast_emulated"
SCHEDULES = ("forward", "reverse", "random")
KERNEL = ("-x", "c++", "-include", "cuda_emulator.h")
# Set in the environment of a process that is to load the library built with sanitizers.
SANITIZED = "CYCLEGAN_FAST_TEST_SANITIZED"
# On a GPU a vector access that is not aligned ends the process, on a CPU it need not.
PLAIN = ("-O2", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def why_not() -> str | None:
    """Return why the emulator cannot be built here, or None."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return "its fibers are written for Linux on x86-64"
    if shutil.which("g++") is None:
        return "there is no g++"
    if cuda_headers() is None:
        return "NVIDIA's headers were not found: no nvcc, no CUDA_HOME, none in site-packages"
    return None


@cache
def cuda_headers() -> Path | None:
    """Return the folder of cuda_fp16.h, where what that includes is there too.

    The wheels that PyTorch brings lack crt/, which comes with nvcc's.
    """
    nvcc = shutil.which("nvcc")
    beside = nvcc and Path(nvcc).resolve().parents[1]
    homes = [os.environ.get("CUDA_HOME"), beside, "/usr/local/cuda"]
    folders = [Path(home) / "include" for home in homes if home]
    folders += sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/include"))
    needed = ("cuda_fp16.h", "crt/host_defines.h")
    complete = (f for f in folders if all((f / name).exists() for name in needed))
    return next(complete, None)


def build(sanitize: bool = False, part: str = "ops") -> Path:
    """Compile the ops of a part, unless that was done, and return the library's path.

    Part "hopper" is what is compiled for sm_90a alone, "ops" is the rest.
    """
    kernels, host = (
        [path for path in sorted(CSRC.glob(f"ops/{name}")) if ("hopper" in path.stem) == hopper]
        for hopper in [part == "hopper"]
        for name in ("*.cu", "*_cuda.cpp")
    )
    torch_side = ("-include", "torch_side.h", f"-DEMULATED_NAMESPACE={NAMESPACE}_{part}")
    sources = dict.fromkeys(kernels, KERNEL)
    sources |= dict.fromkeys([CSRC / "registration.cpp", *host], torch_side)
    return library(part, sources | {CSRC / "common/isa.cpp": ()}, sanitize)


def library(name: str, sources: dict[Path, tuple[str, ...]], sanitize: bool) -> Path:
    """Compile sources, each with options of its own, and the emulator into one library."""
    layer = ("fibers.cpp", "hopper_emulator.cpp", "runtime.cpp", "stacks.cpp")
    sources = sources | dict.fromkeys((HERE / name for name in layer), ())
    torch_dir = Path(torch.__file__).parent
    # Loaded by this PyTorch alone, so its own version is the one to build for.
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    flags = SANITIZE if sanitize else PLAIN
    common = [
        "g++", "-std=c++20", "-fPIC", "-w", *flags,
        f"-I{CSRC}", f"-I{HERE}", f"-I{torch_dir / 'include'}",
        f"-I{torch_dir / 'include/torch/csrc/api/include'}", "-isystem", str(cuda_headers()),
        f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000",
    ]  # fmt: skip
    headers = sorted(path for root in (CSRC, HERE) for path in root.rglob("*.*h"))
    # Not where the sources are, but what they say: a mutant shares what it does not change.
    flags_text = " ".join(common).replace(str(CSRC), "csrc")

    def unit(source: Path) -> Path:
        # Only sources of such a name include headers of that name.
        seen = [
            path
            for path in headers
            if all(n in source.stem or n not in path.stem for n in ("hopper", "hopper_weight"))
        ]
        basis = [flags_text, torch.__version__, *(path.read_text() for path in seen)]
        name = f"{source.stem}-{_digest(*basis, *sources[source], source.read_text())}.o"
        command = [*common, *sources[source], "-c", str(source)]
        return _made(name, command)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        units = [str(path) for path in pool.map(unit, sources)]
    torch_lib = torch_dir / "lib"
    libraries = [f"-L{torch_lib}", f"-Wl,-rpath,{torch_lib}", "-ltorch", "-ltorch_cpu"]
    # Its own cudaGetErrorString, and not that of the runtime that PyTorch has loaded.
    own = "-Wl,-Bsymbolic-functions"
    command = ["g++", "-shared", own, *flags, *units, *libraries]
    return _made(f"{name}-{_digest(*command)}.so", command)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _made(name: str, command: list[str]) -> Path:
    """Return the file of that name; if there is none yet, run the command to make it."""
    folder = ROOT / "build" / "emulator"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.exists():
        return path
    if ROOT not in CSRC.parents:  # what nobody will need again goes where its source goes
        path = CSRC.parent / name
    part = path.with_suffix(f".{os.getpid()}{path.suffix}")
    done = subprocess.run([*command, "-o", str(part)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return part.replace(path)  # whole or not at all: other processes may be making the same


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


@cache
def load(sanitize: bool = False, part: str = "ops"):
    """Return the namespace of a part's emulated ops and a function that sets the schedule."""
    path = str(build(sanitize, part))
    torch.ops.load_library(path)
    functions = ctypes.CDLL(path)

    def set_schedule(name: str, seed: int = 1) -> None:
        functions.cuda_emulator_set_schedule(SCHEDULES.index(name), seed)

    return getattr(torch.ops, f"{NAMESPACE}_{part}"), set_schedule
