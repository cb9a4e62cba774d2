# SPDX-License-Identifier: MIT
"""When a ratio of speeds may be shown; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

UPSTREAM = "upstream, unmodified"
# The plain rows that run as upstream ships it.
AS_SHIPPED = {"cpu": "plain fp32", "cuda": "plain as shipped (TF32)"}
# Beyond this difference of upstream and our plain baseline, ratios would say nothing.
ALLOWED_DIFFERENCE = 0.05


def why_no_ratio(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Return why ratios are not shown: our plain baseline is not as fast as upstream's own code.

    Args:
        rows: of one size and batch, as measure.py makes them.

    Returns:
        A sentence; None where the two agree, or where one of them was not measured.
    """
    times = {row["contender"]: row["milliseconds"]["median"] for row in rows}
    theirs = times.get(UPSTREAM)
    ours = next((times[name] for name in AS_SHIPPED.values() if name in times), None)
    if theirs is None or ours is None or abs(ours / theirs - 1) <= ALLOWED_DIFFERENCE:
        return None
    return (
        f"No ratios: the plain iteration takes {ours / theirs:.2f} times upstream's own, and must "
        f"be within {ALLOWED_DIFFERENCE:.0%}."
    )
