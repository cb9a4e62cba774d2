# SPDX-License-Identifier: MIT
"""Builds the compiled libraries with CMake and ninja; pyproject.toml holds everything else.

Asks the compilers, never the machine: no GPU is looked for and nothing is downloaded. Where a tool
is missing, the package installs without its compiled libraries and says so in one line.
"""

import importlib.util
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
VERSION = runpy.run_path(str(ROOT / "cyclegan_fast" / "_version.py"))["__version__"]
REASON_FILE = "_not_compiled.txt"  # read by cyclegan_fast/_extension.py


def package_folder(name):
    """Return where a package lies, without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def build_tool(name):
    """Return a tool that came as a wheel (cmake, ninja) or lies on PATH; None if it is missing."""
    folder = package_folder(name)
    in_wheel = [folder / "data" / "bin" / name] if folder else []
    beside_python = Path(sys.executable).parent / name
    candidates = [str(path) for path in [*in_wheel, beside_python] if path.is_file()]
    return candidates[0] if candidates else shutil.which(name)


def cxx_compiler():
    """Return the C++ compiler: CXX, else the first usual name on PATH; None if there is none."""
    if os.environ.get("CXX"):
        return shutil.which(shlex.split(os.environ["CXX"])[0])
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def cuda_compiler():
    """Return nvcc: CUDACXX, PATH, the usual folder, or NVIDIA's wheels; None if there is none."""
    wheels = Path(sysconfig.get_path("platlib")).glob("nvidia/cu*/bin/nvcc")
    places = [os.environ.get("CUDACXX", "nvcc"), "/usr/local/cuda/bin/nvcc", *map(str, wheels)]
    return next(filter(None, map(shutil.which, places)), None)


def commit():
    """Return the commit being built, or an empty text outside a checkout."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return ""
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


class CMakeBuild(build_ext):
    """Builds all three libraries at once and puts them into the package."""

    def run(self):
        """Configure, build and install into the package, or note why that cannot be."""
        in_place = self.inplace or getattr(self, "editable_mode", False)
        package = (ROOT if in_place else Path(self.build_lib)).resolve() / "cyclegan_fast"
        package.mkdir(parents=True, exist_ok=True)
        (package / REASON_FILE).unlink(missing_ok=True)
        tools = {name: build_tool(name) for name in ("cmake", "ninja")}
        tools |= {name: package_folder(name) for name in ("torch", "pybind11")}
        tools["a C++ compiler"] = cxx_compiler()
        missing = [name for name, where in tools.items() if not where]
        if missing:
            reason = f"{' and '.join(missing)} not found when the package was installed"
            (package / REASON_FILE).write_text(reason + "\n")
            print(f"cyclegan_fast: installing without compiled kernels: {reason}", file=sys.stderr)
            self.outputs = [str(package / REASON_FILE)]
            return
        # One folder for every way to install, so that the next one finds what this one compiled.
        version = runpy.run_path(str(tools["torch"] / "version.py"))["__version__"]
        build = ROOT / "build" / f"{sys.implementation.cache_tag}-torch-{version}"
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count())
        for command in (
            [*self.configure(tools, version), "-S", str(ROOT), "-B", str(build)],
            [tools["cmake"], "--build", str(build), "--parallel", jobs],
            [tools["cmake"], "--install", str(build), "--prefix", str(package)],
        ):
            if subprocess.run(command).returncode != 0:
                raise CompileError(f"cyclegan_fast: failed, see above: {shlex.join(command)}")
        manifest = (build / "install_manifest.txt").read_text()
        self.outputs = [str(package / Path(line).name) for line in manifest.splitlines()]
        if str(package / "_cuda.so") not in self.outputs:
            (package / "_cuda.so").unlink(missing_ok=True)  # of an earlier build

    def configure(self, tools, torch_version):
        """Return the CMake command line, less its folders."""
        values = {
            "CMAKE_MAKE_PROGRAM": tools["ninja"],
            "CMAKE_BUILD_TYPE": os.environ.get("CMAKE_BUILD_TYPE", "Release"),
            "CYCLEGAN_FAST_VERSION": VERSION,
            "CYCLEGAN_FAST_COMMIT": commit(),
            "CYCLEGAN_FAST_CUDA": os.environ.get("CYCLEGAN_FAST_CUDA", "AUTO"),
            "TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST", ""),
            "TORCH_DIR": tools["torch"],
            "TORCH_VERSION": torch_version,
            "PYBIND11_INCLUDE": tools["pybind11"] / "include",
            "PYTHON_INCLUDE": sysconfig.get_path("include"),
            "PYTHON_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX"),
            "CYCLEGAN_FAST_NVCC": cuda_compiler() or "",
        }
        definitions = [f"-D{name}={value}" for name, value in values.items()]
        extra = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        return [tools["cmake"], "-G", "Ninja", *definitions, *extra]

    def get_outputs(self):
        """Return the files that were really built, for the installers that ask."""
        return getattr(self, "outputs", [])

    def get_output_mapping(self):
        """Return nothing: an editable install builds into the source tree at once."""
        return {}


# One name stands for all that CMake builds: it makes the wheel one for this platform.
setup(ext_modules=[Extension("cyclegan_fast._C", [])], cmdclass={"build_ext": CMakeBuild})
