# SPDX-License-Identifier: MIT
"""Write report.html, one self-contained page without scripts, and report.json beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cyclegan_fast.io.pictures import encode, to_uint8, write_bytes

HTML, JSON = "report.html", "report.json"


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures under headings.

    Attributes:
        title: what is shown.
        about: one sentence on how to read it.
        headings: over the columns.
        rows: for each row one uint8 [H, W, C] per heading.
    """

    title: str
    about: str
    headings: Sequence[str]
    rows: Sequence[Sequence[np.ndarray]]

    @property
    def halves(self) -> list[Sequence[Sequence[np.ndarray]]]:
        """The rows in two parts to be set side by side; in one where they are few or long."""
        if len(self.rows) < 2 or len(self.headings) > 4:
            return [self.rows]
        middle = -(-len(self.rows) // 2)
        return [self.rows[:middle], self.rows[middle:]]

    @classmethod
    def of(cls, title: str, about: str, columns: Mapping[str, Tensor]) -> Gallery:
        """Build from tensors [N, C, H, W] in [-1, 1], one for each column."""
        arrays = [to_uint8(column) for column in columns.values()]
        return cls(title, about, list(columns), list(zip(*arrays, strict=True)))


def write(
    folder: Path,
    facts: dict[str, Any],
    galleries: Sequence[Gallery],
    over_time: Gallery | None = None,
    curves_svg: bytes | None = None,
) -> Path:
    """Write the report of a run.

    Args:
        folder: the run's folder.
        facts: plain values; report.json holds them as they are, the page shows them (see
            report.html.j2 for the names).
        galleries: pictures to show.
        over_time: how they came about, or None.
        curves_svg: the loss curves, or None.

    Returns:
        The page's path.

    Raises:
        OSError: it could not be written.
    """
    page = render(facts, galleries, over_time, curves_svg)
    write_bytes(folder / JSON, json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n")
    write_bytes(folder / HTML, page.encode())
    return folder / HTML


def render(
    facts: Mapping[str, Any],
    galleries: Sequence[Gallery],
    over_time: Gallery | None = None,
    curves_svg: bytes | None = None,
) -> str:
    """Return the page: every value escaped, every picture inside, nothing fetched, no script."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    environment.filters["data_uri"] = _picture_uri
    return environment.get_template("report.html.j2").render(
        facts=facts,
        galleries=galleries,
        over_time=over_time,
        curves=_uri("image/svg+xml", curves_svg) if curves_svg else None,
    )


def figure(value: float | None) -> str:
    """Return a measured value with three digits that matter."""
    if value is None:
        return "–"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
        if abs(value) >= 1
        else (f"{value:.3f}")
    )


def _picture_uri(picture: np.ndarray) -> str:
    return _uri("image/png", encode(picture, ".png"))


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
