# SPDX-License-Identifier: MIT
"""Runs Python under the null CUDA runtime, as `python` would run it.

    python tests/null_cuda/under.py SCRIPT [ARGUMENT ...]
    python tests/null_cuda/under.py -m MODULE [ARGUMENT ...]
    python tests/null_cuda/under.py -c CODE

The interpreter for everything that gpu_report.py starts when it is rehearsed. Host code runs as on
a GPU, kernels do nothing: see null_cuda.h, and unjudged.py for what is therefore not judged.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# Python itself has put this file's folder first.
import null_cuda

runtime = null_cuda.Runtime()  # before PyTorch, which the next two import
import null_triton  # noqa: E402
import unjudged  # noqa: E402


def main() -> None:
    """Run what the arguments name."""
    kind, *rest = sys.argv[1:]
    # As Python sets it: the script's folder, or the present one.
    sys.path[0] = "" if kind in ("-m", "-c") else str(Path(kind).resolve().parent)
    sys.modules["under"] = sys.modules["__main__"]  # for code that reads `runtime`
    null_triton.install(runtime)
    unjudged.install()
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main()
