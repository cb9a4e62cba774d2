# SPDX-License-Identifier: MIT
"""Runs Python under the null CUDA runtime, as `python` would run it.

    python tests/null_cuda/under.py SCRIPT [ARGUMENT ...]
    python tests/null_cuda/under.py -m MODULE [ARGUMENT ...]
    python tests/null_cuda/under.py -c CODE

The interpreter for everything that gpu_report.py starts when it is rehearsed. Host code runs as on a
GPU, kernels do nothing: see null_cuda.h, and unjudged.py for what is therefore not judged.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import null_cuda  # noqa: E402

runtime = null_cuda.Runtime()  # before PyTorch, which the next two import
import null_triton  # noqa: E402
import unjudged  # noqa: E402


def main() -> None:
    """Run what the arguments name."""
    sys.path.remove(str(HERE))
    sys.modules["under"] = sys.modules["__main__"]  # for code that reads `runtime`
    null_triton.install(runtime)
    unjudged.install()
    kind, *rest = sys.argv[1:]
    if kind == "-m":
        sys.argv = rest
        sys.path.insert(0, "")
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [kind, *rest]
        sys.path.insert(0, str(Path(kind).resolve().parent))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main()
