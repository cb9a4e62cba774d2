# SPDX-License-Identifier: MIT
"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One change: `right` must occur exactly once in the file."""

    fault: str
    file: str
    right: str
    wrong: str
