# SPDX-License-Identifier: MIT
"""Builds and loads a CUDA runtime without a GPU; null_cuda.h says what it does.

It must be loaded before PyTorch, so in a process of its own, which under.py starts. PyTorch itself
is as it is: its calls of libcudart, libcuda and libcublas find this library first.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# PyTorch's libraries that call CUDA.
CALLERS = ("c10_cuda", "torch_cuda", "torch_python", "torch_cpu", "caffe2_nvrtc")
CALL = re.compile(r" U ((?:__cuda|cuda[A-Z]|cu[A-Z]|cublas)\w*)")
# Calls that compute, to be noted by name among those that are generated.
COMPUTES = re.compile(r"cublas.*(gemm|gemv|Gemm|dot|trsm|Matmul)$")
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-w", "-fvisibility=hidden")


def why_not() -> str | None:
    """Return why it cannot be built here, or None."""
    if sys.platform != "linux":
        return "it is written for Linux"
    for tool in ("g++", "nm"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    if headers() is None:
        return "NVIDIA's headers were not found: no nvcc, no CUDA_HOME, neither Triton nor a wheel"
    if not (torch_libraries() / "libtorch_cuda.so").exists():
        return "PyTorch is a build without CUDA"
    return None


def headers() -> Path | None:
    """Return the folder that holds NVIDIA's headers, with what they include; Triton brings one."""
    nvcc = shutil.which("nvcc")
    beside = nvcc and Path(nvcc).resolve().parents[1]
    homes = [os.environ.get("CUDA_HOME"), beside, "/usr/local/cuda"]
    folders = [Path(home) / "include" for home in homes if home]
    packages = Path(sysconfig.get_path("purelib"))
    folders += [packages / "triton/backends/nvidia/include"]
    folders += sorted(packages.glob("nvidia/*/include"))
    needed = ("cuda.h", "cuda_runtime_api.h", "crt/host_defines.h")
    return next((f for f in folders if all((f / name).exists() for name in needed)), None)


def torch_libraries() -> Path:
    """Return the folder of PyTorch's libraries, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None, "PyTorch is not installed"
    return Path(spec.origin).parent / "lib"


def build() -> Path:
    """Compile the library, unless that was done, and return its path."""
    sources = sorted(HERE.glob("*.cpp"))
    version = (torch_libraries().parent / "version.py").read_text()
    texts = [path.read_text() for path in (*sources, HERE / "null_cuda.h", Path(__file__))]
    digest = hashlib.sha256("\0".join([version, *texts]).encode()).hexdigest()[:16]
    folder = ROOT / "build" / "null_cuda"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"null_cuda-{digest}.so"
    if library.exists():
        return library
    part = folder / f"{digest}.{os.getpid()}"
    part.mkdir()
    include = ["-isystem", str(headers())]
    objects = []
    for source in sources:
        objects.append(str(part / f"{source.stem}.o"))
        _run(["g++", *FLAGS, *include, "-c", str(source), "-o", objects[-1]])
    rest = part / "generated.cpp"
    rest.write_text(generated(_symbols(["--defined-only", *objects], r" T (\w+)")))
    made = part / library.name
    # By the driver's name, so that who asks the loader for the driver gets this library.
    options = ["-shared", "-Wl,-soname,libcuda.so.1"]
    _run(["g++", *FLAGS, *options, *objects, str(rest), "-o", str(made)])
    made.replace(library)  # whole or not at all: other processes may be making the same
    shutil.rmtree(part)
    return library


def generated(defined: set[str]) -> str:
    """Return C++ for every CUDA function that PyTorch calls and that is not defined: success."""
    paths = [torch_libraries() / f"lib{name}.so" for name in CALLERS]
    called = _symbols(
        ["-D", "--undefined-only", *(str(p) for p in paths if p.exists())], CALL.pattern
    )
    lines = ['extern "C" void null_cuda_note(const char*, void*);']
    for name in sorted(called - defined):
        if name.startswith("cuFile"):  # another library's
            continue
        body = f'null_cuda_note("{name}", nullptr); ' if COMPUTES.search(name) else ""
        visible = 'extern "C" __attribute__((visibility("default")))'
        lines.append(f"{visible} int {name}(...) {{ {body}return 0; }}")
    return "\n".join(lines) + "\n"


def _symbols(arguments: list[str], pattern: str) -> set[str]:
    return set(re.findall(pattern, _run(["nm", *arguments])))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return done.stdout


class Runtime:
    """The library, loaded, and what it has noted."""

    def __init__(self) -> None:
        if "torch" in sys.modules:
            raise RuntimeError("the null CUDA runtime must be loaded before PyTorch")
        self._library = ctypes.CDLL(str(build()), mode=ctypes.RTLD_GLOBAL)
        self._library.null_cuda_work.restype = ctypes.c_char_p
        self._library.null_cuda_graph_work.restype = ctypes.c_char_p
        self._library.null_cuda_note.argtypes = (ctypes.c_char_p, ctypes.c_void_p)

    def clear(self) -> None:
        """Forget what was noted."""
        self._library.null_cuda_clear()

    def note(self, work: str, stream: int) -> None:
        """Note work that does not come by the library's own functions."""
        self._library.null_cuda_note(work.encode(), stream)

    @property
    def work(self) -> list[str]:
        """Kernels, copies, memsets and graphs since `clear`, by name."""
        count = self._library.null_cuda_count()
        return [self._library.null_cuda_work(i).decode() for i in range(count)]

    @property
    def graph(self) -> list[str]:
        """What the graph holds that was launched last, by name."""
        count = self._library.null_cuda_graph_count()
        return [self._library.null_cuda_graph_work(i).decode() for i in range(count)]

    @property
    def synchronisations(self) -> int:
        """Times since `clear` that the host waited for the device."""
        return self._library.null_cuda_synchronisations()

    @property
    def copies_to_host(self) -> int:
        """Copies from the device to the host since `clear`."""
        return self._library.null_cuda_copies_to_host()
