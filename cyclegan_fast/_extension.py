# SPDX-License-Identifier: MIT
"""Finds and loads the compiled libraries once, and says why where it cannot.

Loading registers the raw ops ``torch.ops.cyclegan_fast_C.*``: ``_C.so`` brings their schemas and
CPU kernels, ``_cuda.so`` the CUDA kernels. Neither is needed to import the package.
"""

from __future__ import annotations

from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
REASON_FILE = "_not_compiled.txt"  # written by setup.py where it found no compiler


def _load(library: str) -> str | None:
    """Load a library of the package; None, or why it could not be loaded."""
    path = FOLDER / library
    if not path.is_file():
        return _why_missing(library)
    try:
        torch.ops.load_library(path)
    except (OSError, RuntimeError) as error:  # missing symbol or shared library, another torch
        # torch may raise from the loader's own error, which is the one that names the cause.
        return f"{library} does not load here: {str(error.__cause__ or error).splitlines()[0]}"
    return None


def _why_missing(library: str) -> str:
    note = FOLDER / REASON_FILE
    if note.is_file():
        return f"{note.read_text().strip()}; install them and then the package again"
    try:
        reason = build_info()["no_cuda"] if library == "_cuda.so" else ""
    except ImportError:
        reason = ""
    if reason:
        return f"the package was built without CUDA kernels: {reason}"
    return f"{library} is not in {FOLDER}; build it with `python setup.py build_ext --inplace`"


def build_info() -> dict[str, object]:
    """Return how the compiled libraries were built: version, compilers, architectures, PyTorch.

    Raises:
        ImportError: the package was installed without a compiler.
    """
    from cyclegan_fast import _build_info

    return _build_info.build_info()


def available() -> bool:
    """Return whether the compiled CPU kernels are loaded."""
    return _why_not is None


def cuda_available() -> bool:
    """Return whether the compiled CUDA kernels are loaded; it does not ask for a GPU."""
    return _why_not_cuda is None


def why_not() -> str:
    """Return why the compiled CPU kernels are not loaded, or an empty text if they are."""
    return _why_not or ""


def why_not_cuda() -> str:
    """Return why the compiled CUDA kernels are not loaded, or an empty text if they are."""
    return _why_not_cuda or ""


_why_not: str | None = _load("_C.so")
_why_not_cuda: str | None = (
    _why_not
    or (None if torch.version.cuda else f"PyTorch {torch.__version__} is a build without CUDA")
    or _load("_cuda.so")
)
