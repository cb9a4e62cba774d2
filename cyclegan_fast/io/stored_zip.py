# SPDX-License-Identifier: MIT
"""Walk the directory of a zip archive whose records are stored, not compressed.

That is what torch.save writes. A record that is compressed could unfold into any amount of memory,
and two records that overlap could claim more bytes than the file has: both are refused here, from
the directory alone. Every record is also compared with its own header and its checksum, because a
loader that trusts one of two disagreeing headers would see another file than the one checked.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

MAX_DIRECTORY_BYTES = 8 << 20
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


class ZipError(ValueError):
    """The archive is damaged or not of the plain kind that torch.save writes."""


@dataclass(frozen=True)
class Record:
    """One stored record: where its bytes are in the file, and their CRC-32."""

    name: str
    header: int
    start: int
    size: int
    crc: int

    def read(self, file: BinaryIO) -> bytes:
        """Return the record's bytes."""
        file.seek(self.start)
        return file.read(self.size)


def walk(file: BinaryIO) -> dict[str, Record]:
    """Return the records of a stored zip archive by name, after checking that they are sound.

    Args:
        file: binary, seekable; the archive fills it from first to last byte.

    Raises:
        ZipError: compressed, encrypted, overlapping, doubled or damaged records.
    """
    size = file.seek(0, os.SEEK_END)
    count, length, offset = _find_directory(file, size)
    file.seek(offset)
    data = file.read(length)
    records: dict[str, Record] = {}
    position = 0
    for _ in range(count):
        if position + _ENTRY.size > len(data):
            raise ZipError("its directory is cut short")
        fields = _ENTRY.unpack_from(data, position)
        name_length, extra_length, comment_length = fields[10:13]
        raw = data[position + _ENTRY.size : position + _ENTRY.size + name_length]
        position += _ENTRY.size + name_length + extra_length + comment_length
        record = _record(file, fields, raw, offset)
        if record.name in records:
            raise ZipError(f"record {record.name!r} is there twice")
        records[record.name] = record
    end = 0
    for record in sorted(records.values(), key=lambda r: r.header):
        if record.header < end:
            raise ZipError(f"record {record.name!r} overlaps another one")
        end = record.start + record.size
    return records


def check_crc(file: BinaryIO, record: Record) -> None:
    """Read a record in pieces and compare its checksum.

    Raises:
        ZipError: the bytes are not those that were written.
    """
    file.seek(record.start)
    crc, left = 0, record.size
    while left:
        piece = file.read(min(left, 1 << 20))
        if not piece:
            raise ZipError(f"record {record.name!r} is cut short")
        crc = zlib.crc32(piece, crc)
        left -= len(piece)
    if crc != record.crc:
        raise ZipError(f"record {record.name!r} has a wrong checksum: the file is damaged")


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return (number of entries, bytes, offset) of the central directory."""
    if size < _END.size:
        raise ZipError("it is too short")
    file.seek(size - _END.size)
    magic, _, _, _, count, length, offset, comment = _END.unpack(file.read(_END.size))
    if magic != b"PK\5\6" or comment:
        raise ZipError("its end is missing: the file is cut short, or something follows it")
    end_at = size - _END.size
    locator_at = size - _END.size - _END64_LOCATOR.size
    if locator_at >= 0:
        file.seek(locator_at)
        magic, _, end64_at, _ = _END64_LOCATOR.unpack(file.read(_END64_LOCATOR.size))
        if magic == b"PK\6\7":
            if end64_at != locator_at - _END64.size:
                raise ZipError("its directory is not where it should be")
            file.seek(end64_at)
            end64 = _END64.unpack(file.read(_END64.size))
            if end64[0] != b"PK\6\6":
                raise ZipError("its directory is not where it should be")
            count, length, offset = end64[7:10]
            end_at = end64_at
    if length > MAX_DIRECTORY_BYTES:
        raise ZipError(f"its directory takes {length} bytes, more than {MAX_DIRECTORY_BYTES}")
    if offset + length != end_at:
        raise ZipError("its directory is not where it should be")
    return count, length, offset


def _record(file: BinaryIO, fields: tuple, raw_name: bytes, directory_at: int) -> Record:
    magic, _, _, flags, method, _, _, crc, packed, size = fields[:10]
    header = fields[16]
    try:
        name = raw_name.decode("utf-8")
    except UnicodeDecodeError:
        raise ZipError("a record's name is not text") from None
    if magic != b"PK\1\2":
        raise ZipError("its directory is damaged")
    if flags & 1:
        raise ZipError(f"record {name!r} is encrypted")
    if method != 0 or packed != size:
        raise ZipError(f"record {name!r} is compressed, which torch.save never does")
    if 0xFFFFFFFF in (size, header):
        raise ZipError(f"record {name!r} is larger than 4 GiB")
    file.seek(header)
    local = file.read(_LOCAL.size)
    if len(local) < _LOCAL.size:
        raise ZipError(f"record {name!r} lies outside the file")
    magic, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack(local)
    if magic != b"PK\3\4" or flags & 1 or method != 0 or file.read(name_length) != raw_name:
        raise ZipError(f"record {name!r} does not agree with its own header")
    start = header + _LOCAL.size + name_length + extra_length
    if start + size > directory_at:
        raise ZipError(f"record {name!r} lies outside the file")
    return Record(name, header, start, size, crc)
