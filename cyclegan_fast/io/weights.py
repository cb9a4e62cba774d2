# SPDX-License-Identifier: MIT
"""Load a generator from whatever holds one: a file of any era, or the folder of a run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cyclegan_fast.errors import WeightsError, printable
from cyclegan_fast.io import architecture, run_folder
from cyclegan_fast.io.architecture import Architecture
from cyclegan_fast.io.safe_pth import read_pth

DIRECTIONS = ("AtoB", "BtoA")
# Names that programs of the family give to the generator of each direction, as a whole word.
_NAMES = {
    "AtoB": r"G_A|netG_A|G_AB|G_A2B|G_AtoB|netG_A2B|genA2B|A2B|AtoB|AB",
    "BtoA": r"G_B|netG_B|G_BA|G_B2A|G_BtoA|netG_B2A|genB2A|B2A|BtoA|BA",
}
_OF_FILE = {d: re.compile(rf"(^|[_.-])({names})([_.-]|$)") for d, names in _NAMES.items()}


@dataclass(frozen=True)
class GeneratorInfo:
    """Where a generator came from and what was found.

    Attributes:
        path: the file that was read.
        architecture: what its shapes say it is.
        direction: "AtoB", "BtoA", or None when nothing says which.
        notes: what was renamed, dropped or added to read it, in words.
    """

    path: Path
    architecture: Architecture
    direction: str | None
    notes: tuple[str, ...] = ()


def load_generator(
    path: str | os.PathLike[str], direction: str | None = None, norm: str | None = None
) -> tuple[nn.Module, GeneratorInfo]:
    """Load a generator for inference; its architecture is found from the tensors' shapes.

    Args:
        path: a ``.pth`` file (upstream's, of any era, or of a program with the same networks), a
            ``.safetensors`` file, a checkpoint folder or a run's folder, ours or upstream's.
        direction: "AtoB" or "BtoA": which of a run's two generators; None takes AtoB of a folder.
        norm: "instance" or "batch" for files of 2017 whose shapes allow both; None decides alone.

    Returns:
        The network (float32, CPU, eval mode) and where it came from.

    Raises:
        ValueError: direction or norm is none of the above.
        WeightsError: no generator is there: what the file holds and what was expected.
        OSError: it cannot be read.
    """
    if direction is not None and direction not in DIRECTIONS:
        raise ValueError(f"load_generator: direction must be AtoB or BtoA, got {direction!r}")
    if norm not in (None, "instance", "batch"):
        raise ValueError(f"load_generator: norm must be instance or batch, got {norm!r}")
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"{printable(path)}: there is no such file or folder")
    named: str | None
    if path.is_dir():
        named = direction or "AtoB"
        found = run_folder.find(path, named)
    else:
        named = next((d for d in DIRECTIONS if _OF_FILE[d].search(path.stem)), None)
        found = run_folder.Found(path)
    file = found.path
    if direction and named and named != direction:
        other = _sibling(file, named) or "the generator of the other direction"
        raise WeightsError(
            f"{printable(file)}: its name says that it translates {named}, and "
            f"--direction {direction} was asked for. Give {other}, or --direction {named}."
        )
    tree = _read(file) if found.tensors is None else found.tensors
    fitted = _fit(tree, direction, norm, file)
    broken = [k for k, v in fitted.state.items() if not torch.isfinite(v).all()]
    if broken:
        raise WeightsError(
            f"{printable(file)}: {len(broken)} of its tensors hold NaN or infinity, "
            f"{broken[0]} first: the training had diverged when it was saved. Use an earlier save."
        )
    net = fitted.architecture.build()
    net.load_state_dict(fitted.state)
    notes = (*found.notes, *fitted.notes)
    return net.float().eval(), GeneratorInfo(file, fitted.architecture, direction or named, notes)


def _sibling(file: Path, named: str) -> Path | None:
    letters = {"AtoB": ("G_A", "G_B"), "BtoA": ("G_B", "G_A")}[named]
    other = file.with_name(file.name.replace(*letters))
    return other if other != file and other.exists() else None


def _read(file: Path) -> dict[str, Any]:
    """Return the file's tensors, nested as the file has them."""
    if file.suffix != ".safetensors":
        return read_pth(file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file, device="cpu"))
    except SafetensorError as error:
        raise WeightsError(f"{printable(file)}: damaged or no safetensors file ({error})") from None


def _fit(
    tree: dict[str, Any], direction: str | None, norm: str | None, file: Path
) -> architecture.Fitted:
    """Fit the one generator in a file; its direction's name decides between several."""
    found: dict[str, architecture.Fitted] = {}
    refusals: list[str] = []
    for name, tensors in _groups(tree):
        try:
            found[name] = architecture.fit(tensors, norm)
        except WeightsError as error:
            refusals.append(f"{name}: {error}" if name else str(error))
            continue
        if not name:
            break
    if len(found) > 1 and direction:
        pattern = _OF_FILE[direction]
        found = {name: each for name, each in found.items() if pattern.search(name)} or found
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise WeightsError(
            f"{printable(file)}: it holds several generators ({', '.join(sorted(found))}), and "
            f"{'--direction does not tell which' if direction else 'none was chosen'}. Save the "
            "one you mean alone: torch.save(net.state_dict(), path)."
        )
    raise WeightsError(f"{printable(file)}: {refusals[0] if refusals else 'it holds no tensors'}")


def _groups(tree: dict[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield (name, tensors) of every dictionary that holds tensors, outermost first.

    Tensors whose names share a first part, as those of a module that holds several networks do, are
    a group as well.
    """
    here = {key: value for key, value in tree.items() if isinstance(value, Tensor)}
    if here:
        yield name, here
    below: dict[str, dict[str, Any]] = {
        key: dict(value) for key, value in tree.items() if isinstance(value, dict)
    }
    for key, value in here.items():
        first, dot, rest = key.partition(".")
        if dot and first not in ("model", "module", "_orig_mod", "net"):
            below.setdefault(first, {})[rest] = value
    if name.count(".") > 3:  # deep enough for any checkpoint; a hostile name has no end
        return
    for key, inner in below.items():
        yield from _groups(inner, f"{name}.{key}" if name else key)
