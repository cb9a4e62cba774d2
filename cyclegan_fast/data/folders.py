# SPDX-License-Identifier: MIT
"""Finding the pictures of two domains in trainA/ trainB/ testA/ testB/, and saying what is wrong.

Which files count and their order are those of pytorch-CycleGAN-and-pix2pix (data/image_folder.py):
every file below the folder whose name ends in one of EXTENSIONS, sorted. Wider than there: letters
of any case, .webp, and sub-folders behind symbolic links, each real folder once.
"""

from __future__ import annotations

import difflib
import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cyclegan_fast.errors import BadImageError, DataError, printable

__all__ = ["EXTENSIONS", "DomainFiles", "list_images", "scan"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class DomainFiles:
    """The files of both domains of one phase.

    Attributes:
        A: files of domain A, sorted.
        B: files of domain B, sorted.
        problems: what has a picture's name, or is a folder, and cannot be read.
    """

    A: list[Path]
    B: list[Path]
    problems: list[BadImageError] = field(default_factory=list)


def scan(dataroot: str | Path, phase: str = "train", max_size: float = math.inf) -> DomainFiles:
    """Lists the pictures of `{dataroot}/{phase}A` and `{dataroot}/{phase}B`.

    Args:
        dataroot: folder that holds the domains' folders.
        phase: "train", "test" or any other prefix.
        max_size: at most this many files per domain, the first ones.

    Returns:
        The files of both domains, neither of them empty.

    Raises:
        DataError: a folder is missing or holds no picture. The message shows what was found, the
            nearest guess and the expected layout.
    """
    root = Path(dataroot)
    missing = [phase + side for side in "AB" if not (root / (phase + side)).is_dir()]
    if missing:
        raise DataError(_missing_text(root, phase, missing))
    (a, problems_a), (b, problems_b) = (list_images(root / (phase + s), max_size) for s in "AB")
    for side, files, problems in (("A", a, problems_a), ("B", b, problems_b)):
        if not files:
            raise DataError(_empty_text(root / (phase + side), problems))
    return DomainFiles(a, b, problems_a + problems_b)


def list_images(
    folder: str | Path, max_size: float = math.inf
) -> tuple[list[Path], list[BadImageError]]:
    """Lists the pictures below a folder, sub-folders included, in upstream's order.

    Args:
        folder: folder to search.
        max_size: keep the first ones only.

    Returns:
        The files, and the entries with a picture's name that are none (dangling links, pipes) or
        folders that cannot be read.
    """
    if not max_size >= 1:
        raise ValueError(f"list_images: max_size must be 1 or more, got {max_size}")
    files: list[Path] = []
    problems: list[BadImageError] = []
    seen: set[tuple[int, int]] = set()
    links = [Path(folder)]
    # Linked folders come after all real ones: a folder that is reachable both ways keeps its real
    # path. A folder seen before is not entered again, so loops end and nothing is listed twice.
    while links:
        pending = [links.pop(0)]
        while pending:
            _visit(pending.pop(), files, problems, seen, pending, links)
    # Upstream cuts the list sorted by path components and then sorts what is left as text.
    files.sort(key=lambda path: path.parts)
    return sorted(files[: int(min(max_size, len(files)))], key=str), problems


def _visit(
    folder: Path,
    files: list[Path],
    problems: list[BadImageError],
    seen: set[tuple[int, int]],
    pending: list[Path],
    links: list[Path],
) -> None:
    try:
        here = folder.stat()
        if (here.st_dev, here.st_ino) in seen:
            return
        seen.add((here.st_dev, here.st_ino))
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(BadImageError(str(folder), f"folder cannot be read ({error.strerror})"))
        return
    for entry in ordered:
        path = folder / entry.name
        named_as_picture = entry.name.lower().endswith(EXTENSIONS)
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            if named_as_picture:
                what = "link leads nowhere" if entry.is_symlink() else "cannot be read"
                problems.append(BadImageError(str(path), f"{what} ({error.strerror})"))
            continue
        if stat.S_ISDIR(mode):
            (links if entry.is_symlink() else pending).append(path)
        elif named_as_picture and stat.S_ISREG(mode):
            files.append(path)
        elif named_as_picture:
            problems.append(BadImageError(str(path), "is not a file (a pipe, socket or device)"))


def _missing_text(root: Path, phase: str, missing: list[str]) -> str:
    lines = [f"dataroot must hold {phase}A and {phase}B, got {printable(root)} without "]
    lines[0] += " and ".join(missing) + "."
    if not root.is_dir():
        lines[0] += " It is a file." if root.exists() else " It does not exist."
        lines += _guess_root(root)
    else:
        folders = _subfolders(root)
        lines.append("Found there: " + _contents(root, folders))
        lines += _guess_inside(root, folders, phase, missing)
    lines += [
        "Expected layout (sub-folders and unequal numbers are fine, names need not match):",
        f"  {printable(root)}/",
        f"    {phase}A/   pictures of the first domain",
        f"    {phase}B/   pictures of the second domain",
    ]
    return "\n".join(lines)


def _empty_text(folder: Path, problems: list[BadImageError]) -> str:
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        names = []
    found = ", ".join(printable(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
    lines = [
        f"{printable(folder)} holds no picture. Found there: {found or 'nothing'}.",
        f"Put files into it that end in {' '.join(EXTENSIONS)} (letters of any case).",
    ]
    return "\n".join(lines + [f"  {problem}" for problem in problems[:8]])


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _contents(root: Path, folders: list[Path]) -> str:
    found = [f"{printable(path.name)}/ ({_count(path)} pictures)" for path in folders[:8]]
    if len(folders) > 8:
        found.append(f"{len(folders) - 8} more folders")
    loose = _count(root)
    if loose:
        found.append(f"{loose} pictures beside them" if folders else f"{loose} pictures")
    return (", ".join(found) or "nothing") + "."


def _count(folder: Path) -> int:
    try:
        return sum(name.lower().endswith(EXTENSIONS) for name in os.listdir(folder))
    except OSError:
        return 0


def _guess_root(root: Path) -> list[str]:
    if root.is_file():
        return ["Give the folder that holds the pictures' folders."]
    parent = root.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    names = [path.name for path in _subfolders(parent)]
    near = difflib.get_close_matches(root.name, names, n=1)
    if near:
        return [f"Did you mean {printable(parent / near[0])}?"]
    listed = ", ".join(printable(name) for name in names[:8]) or "no folder"
    return [f"In {printable(parent)} there is: {listed}."]


def _guess_inside(root: Path, folders: list[Path], phase: str, missing: list[str]) -> list[str]:
    """Names the likeliest mistake: one level off, the wrong phase, or other folder names."""
    here = root.resolve()
    if here.name.lower() in (f"{phase}a".lower(), f"{phase}b".lower()):
        return [f"Did you mean its parent, {printable(here.parent)}?"]
    for folder in folders:
        if all((folder / (phase + side)).is_dir() for side in "AB"):
            return [f"Did you mean {printable(folder)}? It holds {phase}A and {phase}B."]
    lines = []
    for name in missing:
        guess = _guess_domain(folders, phase, name[-1])
        if guess is not None:
            there, wanted = printable(guess), printable(root / name)
            lines.append(f'Did you mean {there}? Then: mv "{there}" "{wanted}"')
    if not lines and len(folders) == 2 and len(missing) == 2:
        for folder, name in zip(folders, missing, strict=True):
            there, wanted = printable(folder), printable(root / name)
            lines.append(f'If {folder.name} is domain {name[-1]}: mv "{there}" "{wanted}"')
    return lines


def _guess_domain(folders: list[Path], phase: str, side: str) -> Path | None:
    """Finds a folder called like the wanted one: TrainA, train_A, train/A, A, domainA."""

    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    wanted = (plain(phase) + side.lower(), side.lower(), "domain" + side.lower())
    candidates = [(plain(folder.name), folder) for folder in folders]
    candidates += [
        (plain(folder.name + inner.name), inner)
        for folder in folders
        if plain(folder.name) == plain(phase)
        for inner in _subfolders(folder)
    ]
    for name in wanted:
        for candidate, path in candidates:
            if candidate == name:
                return path
    return None
