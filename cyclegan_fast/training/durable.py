# SPDX-License-Identifier: MIT
"""Files that are whole or absent, also after a power cut.

A folder appears under its name by one rename, after every byte in it and its own entries have been
flushed; then the entry of the name is flushed in the folder above. Every system call goes through
this module's `os`, so that tests can make the N-th one fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 1 << 24  # of a write: a signal is noticed between two


def write_file(path: Path, data: bytes) -> None:
    """Create a file, mode by umask, and flush its bytes to the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view[:_CHUNK]) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Create a folder with these files, whole or not at all; a folder of that name is replaced.

    Raises:
        OSError: as the disk says; what had been written is removed again.
    """
    with _temporary(path) as (fresh, old):
        os.mkdir(fresh)
        for name, data in files.items():
            write_file(fresh / name, data)
        sync_folder(fresh)
        replaces = os.path.lexists(path)
        if replaces:
            os.rename(path, old)
        try:
            os.rename(fresh, path)
        except OSError:
            if replaces:
                os.rename(old, path)
            raise
        sync_folder(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, over one of that name.

    Raises:
        OSError: as the disk says; the file of that name is then as before.
    """
    with _temporary(path) as (fresh, _):
        write_file(fresh, data)
        os.replace(fresh, path)
        sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, under another name first: it never stands half empty under its own."""
    with _temporary(path) as (_, old):
        os.rename(path, old)


def leftovers(folder: Path) -> list[Path]:
    """Return what killed processes left behind; another process that lives keeps its own."""
    found = []
    for path in folder.glob("*.tmp-*"):
        owner = path.name.rpartition("-")[2]
        if not owner.isdigit() or int(owner) == os.getpid() or not _lives(int(owner)):
            found.append(path)
    return found


def discard(path: Path) -> None:
    """Remove a file or folder, if it can be removed; nothing depends on it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # `leftovers` finds it next time


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, Path]]:
    names = [path.with_name(f"{path.name}.{kind}.tmp-{os.getpid()}") for kind in ("new", "old")]
    for name in names:
        discard(name)
    try:
        yield names[0], names[1]
    finally:
        for name in names:
            discard(name)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
