# SPDX-License-Identifier: MIT
"""Calls into memory that is there: for walks that run their backward themselves.

A call is made first and done later, so that those of two networks side by side can be one launch.
"""

from __future__ import annotations

from typing import Any, Protocol


class Call(Protocol):
    """One call of an op, forward or backward, with all of its memory."""

    def alike(self, other: Any) -> bool:
        """Whether both can be one launch."""

    def do(self, *beside: Any) -> None:
        """Do the call, and the one beside it, if any: one alike."""


def do(*calls: Call) -> None:
    """Do one call, or two; those alike in one launch."""
    if len(calls) == 2 and calls[0].alike(calls[1]):
        calls[0].do(calls[1])
    else:
        for call in calls:
            call.do()
