# SPDX-License-Identifier: MIT
"""The end of a run: figures, report.html, and what to type next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cyclegan_fast.cli import PROGRAM
from cyclegan_fast.cli.progress import duration
from cyclegan_fast.cli.reporter import CURVES, SAMPLES
from cyclegan_fast.cli.run import Run, changed
from cyclegan_fast.data.folders import scan
from cyclegan_fast.errors import DataError, printable
from cyclegan_fast.report import curves, page
from cyclegan_fast.report.evaluation import ROWS, Direction, as_facts, domains, evaluate
from cyclegan_fast.training.metrics_log import FILE_NAME
from cyclegan_fast.training.reporter import RunResult

if TYPE_CHECKING:
    from collections.abc import Sequence

_FRAMES = 8


def finish(
    run: Run,
    result: RunResult,
    count: int,
    paired: bool = False,
    title: str | None = None,
    verdict: dict[str, Any] | None = None,
    measured: list[Direction] | None = None,
) -> Path:
    """Measure, write the report, and print where everything is.

    Args:
        run: the run that ended.
        result: how it ended.
        count: test pictures to measure on; 0 for none.
        paired: testA and testB hold the same scenes.
        title: of the report; None for the run's name.
        verdict: "passed" (true, false or null), "text" and "lines"; None says that it is finished.
        measured: figures that were measured already.

    Returns:
        The report's path.
    """
    directions = measured if measured is not None else measure(run, result, count, paired)
    if directions and measured is None:
        print(table(directions))
    facts = facts_of(run, result, directions)
    facts["title"] = title or f"Run {run.config.name}"
    facts["verdict"] = verdict or {
        "passed": None,
        "text": f"Finished: {result.step:,} of {result.total_steps:,} steps.",
        "lines": [],
    }
    if not directions:
        facts["verdict"]["lines"].append(
            "Nothing was measured: there are no testA and testB, or --evaluate was 0."
        )
    losses = curves.read_losses(result.run_dir / FILE_NAME)
    drawing = None
    if losses and len(losses["step"]):
        drawing = curves.image(curves.draw(losses, domains(run.config, run.names)), "svg")
    path = page.write(result.run_dir, facts, galleries(directions), strip(run, result), drawing)
    folder = result.run_dir
    print(f"open     {printable(path)}")
    print(f"samples  {printable(folder / SAMPLES)}/  ·  curves {CURVES}  ·  losses {FILE_NAME}")
    print(f"model    {printable(result.saved)}" if result.saved else "model    no save")
    for line in facts["next"]:
        print(f"next     {line['command']}")
    return path


def measure(run: Run, result: RunResult, count: int, paired: bool) -> list[Direction]:
    """Return both directions' figures, or none if there are no test pictures."""
    if not count:
        return []
    try:
        scan(run.config.dataroot, "test")
    except DataError:
        return []
    print("measure  on testA and testB", flush=True)
    return evaluate(result.trainer, count, paired, run.names)


def table(directions: list[Direction]) -> str:
    """Return the figures as a table for a terminal."""
    lines = ["result   " + " " * 32 + "".join(f"{row:>14}" for row in ROWS)]
    for direction in directions:
        for metric in as_facts([direction]):
            name = f"{direction.name}  {metric['metric'].replace('_', '-')}"
            values = [metric["values"].get(row) for row in ROWS]
            lines.append(f"  {name:<39}" + "".join(f"{page.figure(value):>14}" for value in values))
    return "\n".join(lines)


def facts_of(run: Run, result: RunResult, directions: list[Direction]) -> dict[str, Any]:
    """Return everything that the report shows but its title and verdict, as plain values."""
    config, record = run.config, run.record
    start = record["starts"][-1]
    sizes = record["data"]["pictures"]
    seconds = sum(each.get("seconds", 0) for each in record["starts"])
    rate = start["images_per_second"]
    trained = f"{config.netG} with {config.ngf} filters, batch {config.batch_size}"
    facts: dict[str, Any] = {
        "subtitle": f"{trained}, on {record['device']} in {record['precision']}, "
        f"{start['at'][:10]}",
        "cards": [
            {"value": f"{result.step:,}", "label": "steps"},
            {"value": duration(seconds), "label": "training time"},
            {"value": page.figure(rate), "label": "images per second"},
            {"value": f"{sizes['A']} + {sizes['B']}", "label": "training pictures, unpaired"},
        ],
        "quality": as_facts(directions),
        "quality_rows": list(ROWS),
        "quality_about": _about_quality(directions),
        "speed": (
            f"{rate:.2f} images/s of each domain over {start['seconds']:.0f} s, samples, saves and "
            f"reading included, on {record['device']} in {record['precision']}."
        ),
        "served": [
            {"op": op, "backend": name, "calls": calls}
            for op, names in record["served"].items()
            for name, calls in names.items()
        ],
        "command": start["command"],
        "config": [{**each, "value": str(each["value"])} for each in changed(config)],
        "versions": record["versions"],
        "data": f"Data: {record['data']['dataroot']}, {sizes['A']} pictures in A and "
        f"{sizes['B']} in B; {len(record['data']['skipped'])} were skipped.",
        "files": _files(run, result),
        "next": _next(run, result),
        "footer": "Written by cyclegan-fast. Method: Zhu, Park, Isola, Efros, ICCV 2017, "
        "arXiv:1703.10593.",
    }
    return facts


def _about_quality(directions: list[Direction]) -> str:
    if not directions:
        return ""
    about = (
        f"On {' and '.join(str(each.count) for each in directions)} test pictures that were not "
        "trained on. Colour match gives each picture the other domain's mean and spread of "
        "colours, the best that can be done without looking at what is in it. The floor is the "
        "distance between two sets of real pictures."
    )
    if "psnr" in directions[0].table:
        about += (
            " The true counterpart of each test picture is known here, and was hidden from "
            "training."
        )
    return about


def galleries(directions: list[Direction]) -> list[page.Gallery]:
    """Return the test pictures of both directions."""
    return [
        page.Gallery.of(
            direction.name[:1].upper() + direction.name[1:],
            "A test picture, its translation, and the translation taken back"
            + ("; then what it should have become." if "truth" in direction.pictures else "."),
            direction.pictures,
        )
        for direction in directions
    ]


def strip(run: Run, result: RunResult) -> page.Gallery | None:
    """Return one sample picture of each domain, translated as training went on."""
    frames = over_time(result.run_dir / SAMPLES / "over_time")
    if frames is None:
        return None
    steps, rows = frames
    first, second = domains(run.config, run.names)
    return page.Gallery(
        "Over time",
        f"One picture of {first} and one of {second}, translated as training went on.",
        ["input", *(f"step {step:,}" for step in steps)],
        list(rows.values()),
    )


def over_time(folder: Path) -> tuple[list[int], dict[str, list[np.ndarray]]] | None:
    """Return a few evenly spread steps, and for each direction the input and its translations."""
    steps = sorted(
        int(path.stem.rpartition("-")[2])
        for path in folder.glob("fake_B-*.png")
        if path.stem.rpartition("-")[2].isdigit()
    )
    if not steps:
        return None
    chosen = sorted({steps[round(i)] for i in np.linspace(0, len(steps) - 1, _FRAMES)})
    rows = {}
    for name, real in (("fake_B", "real_A"), ("fake_A", "real_B")):
        paths = [folder / f"{real}.png", *(folder / f"{name}-{step:08d}.png" for step in chosen)]
        if all(path.is_file() for path in paths):
            rows[name] = [_read(path) for path in paths]
    return (chosen, rows) if rows else None


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _files(run: Run, result: RunResult) -> list[dict[str, str]]:
    folder = result.run_dir
    found: Sequence[tuple[Path | None, str]] = (
        (
            result.saved,
            "the newest save: weights, optimisers and pools, as safetensors with checksums",
        ),
        (folder / SAMPLES, "sample pictures, first to last"),
        (folder / FILE_NAME, "every loss, one line per report"),
        (folder / CURVES, "the losses drawn"),
        (folder / "run.json", "versions, device, who served which op, how it ended"),
        (folder / "config.yaml", "all options, for --config"),
        (folder / page.JSON, "the figures on this page"),
    )
    return [{"path": str(path), "what": what} for path, what in found if path is not None]


def _next(run: Run, result: RunResult) -> list[dict[str, str]]:
    folder = str(result.run_dir)
    translate = [PROGRAM, "translate", folder, "YOUR_PICTURES", "-o", "OUT", "--direction", "AtoB"]
    lines = [{"what": "Translate pictures with it:", "command": shlex.join(translate)}]
    lines.append(
        {
            "what": "Train on your own pictures (two folders in it, trainA and trainB):",
            "command": f"{PROGRAM} train --dataroot YOUR_FOLDER",
        }
    )
    return lines
