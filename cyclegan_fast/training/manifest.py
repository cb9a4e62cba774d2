# SPDX-License-Identifier: MIT
"""The page in each save that says what is in it, byte for byte, and cannot itself be altered.

Neither torch.load nor safetensors notices a flipped bit in a weight. Here every file of a save is
listed with its size and SHA-256 in `manifest.json`, whose last entry is the digest of the others,
and which is valid in one spelling only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclegan_fast.errors import CheckpointError

NAME = "manifest.json"
FORMAT = "cyclegan_fast save"
VERSION = 1


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write(files: Mapping[str, bytes], facts: Mapping[str, Any]) -> bytes:
    """Return the manifest of these files.

    Args:
        files: name -> content.
        facts: plain values to hold beside them, such as the step.
    """
    listed = {name: {"bytes": len(data), "sha256": digest(data)} for name, data in files.items()}
    body = {"format": FORMAT, "version": VERSION, **facts, "files": listed}
    return _spell({**body, "sha256": digest(_spell(body))})


def read(folder: Path) -> dict[str, Any]:
    """Return a folder's manifest.

    Raises:
        CheckpointError: it is missing, altered or of another format.
    """
    try:
        data = (folder / NAME).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder}: no {NAME}: {error.strerror}") from error
    try:
        page = json.loads(data)
        body = {key: value for key, value in page.items() if key != "sha256"}
        intact = page["sha256"] == digest(_spell(body)) and _spell(page) == data
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder}: {NAME} is damaged") from error
    if not intact:
        raise CheckpointError(f"{folder}: {NAME} is damaged")
    if page.get("format") != FORMAT or page.get("version") != VERSION:
        raise CheckpointError(
            f"{folder}: holds {page.get('format')!r} version {page.get('version')}, and this "
            f"program reads {FORMAT!r} version {VERSION}; a newer program wrote it"
        )
    return page


def read_files(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a folder's manifest and the content of every file it lists, verified.

    Raises:
        CheckpointError: a file is missing, cut short or altered.
    """
    page = read(folder)
    return page, {name: _content(folder, name, fact) for name, fact in page["files"].items()}


def verify(folder: Path) -> None:
    """Raise CheckpointError unless every file of a folder is as it was written."""
    for name, fact in read(folder)["files"].items():
        _content(folder, name, fact)


def _content(folder: Path, name: str, fact: Mapping[str, Any]) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder}: {name}: {error.strerror}") from error
    if len(data) != fact["bytes"]:
        raise CheckpointError(
            f"{folder}: {name} is damaged: it has {len(data)} bytes, {fact['bytes']} were written"
        )
    if digest(data) != fact["sha256"]:
        raise CheckpointError(f"{folder}: {name} is damaged: its SHA-256 is not the one written")
    return data


def _spell(page: Mapping[str, Any]) -> bytes:
    return (json.dumps(page, indent=1) + "\n").encode()
