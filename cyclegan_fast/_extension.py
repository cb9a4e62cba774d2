# SPDX-License-Identifier: MIT
"""Finds and loads the compiled libraries once, and says why where it cannot."""


def available() -> bool:
    """Return whether the compiled CPU kernels are loaded."""
    return False


def cuda_available() -> bool:
    """Return whether the compiled CUDA kernels are loaded."""
    return False


def why_not() -> str:
    """Return why the compiled CPU kernels are not loaded."""
    return "the package was installed without a compiler"


def why_not_cuda() -> str:
    """Return why the compiled CUDA kernels are not loaded."""
    return "the package was installed without nvcc"
