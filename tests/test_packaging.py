# SPDX-License-Identifier: MIT
"""What is installed: with and without a compiler, and what each part of the package needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from cyclegan_fast import _extension

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cyclegan_fast"
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "CMakeLists.txt", "README.md", "LICENSE")
REASON_FILE = "cyclegan_fast/_not_compiled.txt"

# Needed by commands and by nothing else.
OPTIONAL = ("PIL", "yaml", "tyro", "rich", "safetensors", "jinja2", "matplotlib")
# What must import with torch, triton and numpy alone; each with everything below it.
CORE = ("ops", "models", "nn", "fusion", "training", "metrics", "benchmark")


def run(program: str, *, cwd: Path, **environment: str) -> str:
    """Run a program in a fresh interpreter and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def build_wheel(source: Path, out: Path, **environment: str) -> tuple[zipfile.ZipFile, str]:
    """Build a wheel into `out`; return it and what the build said."""
    command = [sys.executable, "setup.py", "build", f"--build-lib={out / 'lib'}"]
    command += ["bdist_wheel", "--skip-build", f"--dist-dir={out}", f"--bdist-dir={out / 'bdist'}"]
    result = subprocess.run(
        command, cwd=source, env=os.environ | environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel), result.stdout + result.stderr


def expected_files() -> set[str]:
    """Every file of the package that is not compiled."""
    found = {path for suffix in ("*.py", "*.html.j2", "py.typed") for path in PACKAGE.rglob(suffix)}
    return {str(path.relative_to(ROOT)) for path in found}


def package_files(wheel: zipfile.ZipFile) -> set[str]:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert all(name.startswith("cyclegan_fast/") for name in names), "tests or sources in the wheel"
    return names


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory) -> Path:
    """The package installed from a copy of the sources with no compiler in sight."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "csrc", source / "csrc")
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "_not_compiled.txt")
    shutil.copytree(PACKAGE, source / "cyclegan_fast", ignore=ignore)
    wheel, said = build_wheel(source, out, PATH="", CXX="")
    reason = "a C++ compiler not found when the package was installed"
    assert said.count("cyclegan_fast: installing without compiled kernels: " + reason) == 1
    assert package_files(wheel) == expected_files() | {REASON_FILE}
    site = tmp_path_factory.mktemp("site")
    wheel.extractall(site)
    return site


def test_without_a_compiler_the_package_works_and_says_why(without_compiler):
    said = run(
        "import torch, cyclegan_fast\n"
        "from cyclegan_fast import _extension, ops\n"
        "assert not _extension.available() and not _extension.cuda_available()\n"
        "x = torch.randn(1, 2, 5, 5)\n"
        "with cyclegan_fast.backend.record() as served:\n"
        "    y = ops.instance_norm_act(x, pad=1)\n"
        "assert y.shape == (1, 2, 7, 7), y.shape\n"
        "assert dict(served) == {('instance_norm_act', 'reference'): 1}, served\n"
        "print(cyclegan_fast.__file__, _extension.why_not(), sep='|')\n"
        "cyclegan_fast.backend.use_backend('native')\n"
        "try:\n"
        "    ops.instance_norm_act(x)\n"
        "except cyclegan_fast.errors.BackendUnavailableError as error:\n"
        "    print(error)\n",
        cwd=without_compiler,
    )
    first, second = said.splitlines()
    where, why = first.split("|")
    assert Path(where).is_relative_to(without_compiler), "not the package under test"
    assert why.startswith("a C++ compiler not found when the package was installed")
    assert why in second


def test_an_extension_that_does_not_load_is_a_reason_not_an_error(without_compiler, tmp_path):
    shutil.copytree(without_compiler / "cyclegan_fast", tmp_path / "cyclegan_fast")
    (tmp_path / REASON_FILE).unlink()
    (tmp_path / "cyclegan_fast" / "_C.so").write_bytes(b"not a library")
    program = "from cyclegan_fast import _extension; print(_extension.why_not())"
    assert run(program, cwd=tmp_path).startswith("_C.so does not load here: ")
    (tmp_path / "cyclegan_fast" / "_C.so").unlink()
    said = run(program, cwd=tmp_path)
    assert said.startswith("_C.so is not in ") and "setup.py build_ext --inplace" in said


def test_the_wheel_holds_the_compiled_libraries(tmp_path):
    cache = ROOT / "build" / f"{sys.implementation.cache_tag}-torch-{torch.__version__}"
    lines = (cache / "CMakeCache.txt").read_text().splitlines()
    chosen = dict(line.split("=", 1) for line in lines if "=" in line)
    # As the checkout was built, so that nothing has to be compiled again.
    names = ("CYCLEGAN_FAST_CUDA:STRING", "TORCH_CUDA_ARCH_LIST:STRING")
    wheel, _ = build_wheel(ROOT, tmp_path, **{n.split(":")[0]: chosen[n] for n in names})
    info = _extension.build_info()
    libraries = {"cyclegan_fast/_C.so"} | ({"cyclegan_fast/_cuda.so"} if info["cuda"] else set())
    compiled = package_files(wheel) - expected_files()
    modules = {name for name in compiled if name.startswith("cyclegan_fast/_build_info.")}
    assert len(modules) == 1 and compiled == libraries | modules
    assert "none-any" not in wheel.filename, "a compiled wheel is for one platform"
    site = tmp_path / "site"
    wheel.extractall(site)
    said = run(
        "import cyclegan_fast\n"
        "from cyclegan_fast import _extension\n"
        "print(cyclegan_fast.__file__, _extension.available(), _extension.why_not())\n",
        cwd=site,
    )
    assert said == f"{site / 'cyclegan_fast' / '__init__.py'} True \n"


BLOCK = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

sys.meta_path.insert(0, Blocked())

def import_all(name):
    module = importlib.import_module(name)
    names = [name]
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if "triton" in {blocked!r} and "triton" in found.name:
            continue  # Triton's own kernels, which their back end imports when it is asked for
        names += import_all(f"{{name}}.{{found.name}}")
    return names

print(*[name for root in {roots!r} for name in import_all(root)])
"""


@pytest.mark.parametrize("blocked", [OPTIONAL, (*OPTIONAL, "triton")], ids=["triton", "no triton"])
def test_the_core_imports_with_torch_and_numpy_alone(blocked):
    roots = ["cyclegan_fast.backend", "cyclegan_fast.draws"]
    roots += [f"cyclegan_fast.{name}" for name in CORE]
    imported = run(BLOCK.format(blocked=blocked, roots=roots), cwd=ROOT).split()
    assert len(imported) > 30, imported


def test_the_benchmarks_import_with_torch_and_numpy_alone():
    modules = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    modules = [name for name in modules if name != "conftest"]
    program = "import sys; sys.path.insert(0, 'benchmarks')\n"
    program += BLOCK.format(blocked=OPTIONAL, roots=modules)
    assert run(program, cwd=ROOT).split() == modules


def test_importing_is_silent():
    program = "import cyclegan_fast, cyclegan_fast.ops, cyclegan_fast._extension"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
