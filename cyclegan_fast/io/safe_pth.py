# SPDX-License-Identifier: MIT
"""Read the tensors of a ``.pth`` file that somebody else wrote.

Three things could go wrong with a stranger's file: it runs code, it fills the memory, it is not
what it says. So its layout is checked first, without torch: the archive is walked (stored_zip), the
description of the tensors is read without running it (pickle_outline), and every tensor must fit
the bytes that the file has. Only then torch's weights_only loader reads it, and what it made is
compared with the description once more. There is no other way in.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cyclegan_fast.errors import WeightsError, printable
from cyclegan_fast.io import pickle_outline, stored_zip
from cyclegan_fast.io.pickle_outline import OutlineError, StorageClaim, TensorClaim

MAX_PICKLE_BYTES = 16 << 20
# The first pickle of a file by torch < 1.6, and the second.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ADVICE = (
    "Use a file that holds the generator's state_dict alone "
    "(torch.save(net.state_dict(), path)) or a .safetensors file."
)


def read_pth(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the tensors of a ``.pth`` file, by name, as the file nests them.

    Args:
        path: a file written by torch.save: a state dict, or dictionaries that hold some.

    Returns:
        Names to tensors on the CPU, or to further such dictionaries; everything else in the file
        (numbers, texts, lists) is left out.

    Raises:
        WeightsError: the file is no such thing, is damaged, or claims more than it has.
        OSError: it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            claims = _check(file)
            file.seek(0)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            return _agreed(claims, loaded)
        except (OutlineError, stored_zip.ZipError) as error:
            raise WeightsError(
                f"{printable(path)}: refused before it was opened: {error}. {_ADVICE}"
            ) from None
        except OSError:
            raise
        # Whatever else torch says about a file that passed the checks is a refusal as well; its
        # own text is kept out, because it advises to load without protection.
        except Exception as error:
            raise WeightsError(
                f"{printable(path)}: torch's weights_only loader refused it "
                f"({type(error).__name__}). {_ADVICE}"
            ) from None


def _check(file: BinaryIO) -> dict[str, Any]:
    """Return the file's tensors as claims, nested as in the file, all within the file's bytes."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise OutlineError("the file is empty")
    file.seek(0)
    start = file.read(4)
    if start == b"PK\3\4":
        return _check_zip(file)
    if start[:2] == b"\x80\x02":
        return _check_legacy(file, size)
    raise OutlineError("it is no file of torch.save")


def _check_zip(file: BinaryIO) -> dict[str, Any]:
    records = stored_zip.walk(file)
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if any(name.endswith("/constants.pkl") for name in records):
        raise OutlineError("it is a TorchScript program, not weights")
    if len(pickles) != 1:
        raise OutlineError("it is a zip archive, but not one of torch.save")
    record = records[pickles[0]]
    if record.size > MAX_PICKLE_BYTES:
        raise OutlineError(f"its table of contents takes {record.size} bytes")
    for each in records.values():
        stored_zip.check_crc(file, each)
    claims = _mapping(pickle_outline.outline(io.BytesIO(record.read(file))))
    prefix = record.name.removesuffix("data.pkl")
    for claim in _tensors(claims):
        data = records.get(f"{prefix}data/{claim.storage.key}")
        if data is None or data.size != claim.storage.nbytes:
            held = "no such record" if data is None else f"{data.size} bytes"
            raise OutlineError(
                f"storage {claim.storage.key!r} is said to have {claim.storage.nbytes} bytes, and "
                f"the file holds {held}"
            )
    return claims


def _check_legacy(file: BinaryIO, size: int) -> dict[str, Any]:
    file.seek(0)
    if pickle_outline.outline(file) != _LEGACY_MAGIC:
        raise OutlineError("it is a pickle, but not one of torch.save")
    if pickle_outline.outline(file) != _LEGACY_PROTOCOL:
        raise OutlineError("its format is unknown")
    pickle_outline.outline(file)  # byte order and word sizes, which torch checks
    claims = _mapping(pickle_outline.outline(file))
    keys = pickle_outline.outline(file)
    storages: dict[str, StorageClaim] = {}
    for claim in _tensors(claims):
        if storages.setdefault(claim.storage.key, claim.storage) != claim.storage:
            raise OutlineError(f"storage {claim.storage.key!r} is described in two ways")
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise OutlineError("its list of storages is not that of its tensors")
    # Each storage is its number of elements in 8 bytes, then the elements.
    expected = file.tell() + sum(8 + storage.nbytes for storage in storages.values())
    if size != expected:
        raise OutlineError(f"it has {size} bytes, and its tensors need {expected}")
    for key in keys:
        if int.from_bytes(file.read(8), "little") != storages[key].numel:
            raise OutlineError(f"storage {key!r} has another length than its tensors say")
        file.seek(storages[key].nbytes, os.SEEK_CUR)
    return claims


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = "one tensor" if isinstance(value, TensorClaim) else f"a {type(value).__name__}"
        raise OutlineError(f"it holds {kind} where a dictionary of tensors is expected")
    return value


def _tensors(value: Any) -> Iterator[TensorClaim]:
    """Yield every claim below ``value`` once, also those in lists that will not be used."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, TensorClaim):
            yield each
        elif isinstance(each, (dict, list, tuple)) and id(each) not in seen:
            seen.add(id(each))
            todo.extend(each.values() if isinstance(each, dict) else each)


def _agreed(claims: dict[str, Any], loaded: Any) -> dict[str, Any]:
    """Return the loaded tensors that match their claims, nested as they are in the file."""
    found: dict[str, Any] = {}
    # A dictionary that appears in several places is used at the first: no file can unfold.
    seen = {id(claims)}
    todo = [(claims, loaded, found)]
    while todo:
        expected, have, into = todo.pop()
        # Not have.items(): a file may give its OrderedDict an attribute of that name.
        kind = OrderedDict if isinstance(have, OrderedDict) else dict
        for key, value in kind.items(have):
            claim = expected.get(key)
            if not isinstance(key, str):
                continue
            if isinstance(claim, TensorClaim):
                if not isinstance(value, torch.Tensor) or tuple(value.shape) != claim.shape:
                    raise OutlineError(f"tensor {key!r} was read otherwise than described")
                into[key] = value.detach()
            elif isinstance(claim, dict) and id(claim) not in seen:
                seen.add(id(claim))
                into[key] = {}
                todo.append((claim, value, into[key]))
    return found
