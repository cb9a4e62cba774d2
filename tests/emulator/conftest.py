# SPDX-License-Identifier: MIT
"""Which cases are executed in every schedule."""

from __future__ import annotations

import hashlib

import emulator
import pytest

# All cases in the first schedule, and a quarter of them in each of the others: they are many for
# their sizes and options, and what races does so in any.
THINNED = {
    "test_losses",
    "test_norm_awkward_shapes",
    "test_norm_every_option",
    "test_norm_of_more_planes_than_a_grids_y",
    "test_reflect_pad2d_copy",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is thinned."""
    items[:] = [item for item in items if not _is_thinned(item)]


def _is_thinned(item: pytest.Item) -> bool:
    parameters = dict(getattr(getattr(item, "callspec", None), "params", {}))
    if item.originalname not in THINNED or "schedule" not in parameters:
        return False
    order = emulator.SCHEDULES.index(parameters.pop("schedule"))
    drawn = hashlib.sha1(str(sorted(parameters.items(), key=str)).encode()).digest()[0]
    return order > 0 and drawn % 4 != order
