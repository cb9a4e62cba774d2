# SPDX-License-Identifier: MIT
"""``cyclegan-fast translate``: a trained generator over a picture or a tree of pictures."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan_fast.cli.arguments import modern, parse
from cyclegan_fast.cli.failures import FAILED, UsageError

ABOUT = """Run a trained generator over a picture or a tree of pictures.

Every result has its picture's name, place in the tree and size, whatever the size. Results that are
there already are kept, so a run that was stopped goes on when it is started again."""


@dataclass(frozen=True)
class TranslateOptions:
    """What to translate, with what, and where to."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run's folder, a .safetensors file, or a .pth file of upstream or of a program with the same
    networks; the architecture is found from the tensors."""
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """A picture, or a folder with pictures at any depth."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for the results (for a single picture also a file name)."""
    direction: Literal["auto", "AtoB", "BtoA"] = "auto"
    """Which of a run's two generators; auto: AtoB, or what a file's name says."""
    batch_size: int | Literal["auto"] = "auto"
    """Most pictures of one size at once; auto: one on a CPU, on a GPU 16 or a million pixels."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on a GPU that has it, fp16 on others, fp32 on a CPU."""
    overwrite: bool = False
    """Replace results that are there already."""
    format: Literal["same", "png", "jpg", "tif"] = "same"
    """Format of the results: each picture's own, or one for all."""
    norm: Literal["auto", "instance", "batch"] = "auto"
    """For files of before July 2017, whose shapes allow both."""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    arguments, notes = modern(arguments)
    options = parse(TranslateOptions, arguments, "translate", ABOUT)
    if options.batch_size != "auto" and options.batch_size < 1:
        raise UsageError(f"--batch_size must be 1 or more, got {options.batch_size}")
    return translate(options, notes)


def translate(options: TranslateOptions, notes: list[str]) -> int:
    """Translate as the options say; prints what it does, returns the exit status."""
    from cyclegan_fast.cli.progress import counter
    from cyclegan_fast.errors import BadImageError, printable
    from cyclegan_fast.io import tree
    from cyclegan_fast.io.translation import Translator
    from cyclegan_fast.io.weights import load_generator

    ending = None if options.format == "same" else f".{options.format}"
    jobs, problems = tree.plan(options.source, options.out, ending)
    direction = None if options.direction == "auto" else options.direction
    norm = None if options.norm == "auto" else options.norm
    net, info = load_generator(options.model, direction, norm)
    architecture = info.architecture
    if architecture.input_nc not in (1, 3) or architecture.output_nc not in (1, 3):
        raise UsageError(
            f"{printable(info.path)}: {architecture} cannot read or write picture files, which "
            "have 1 or 3 channels. Use cyclegan_fast.io.weights.load_generator in Python."
        )
    translator = Translator(net, architecture, options.device, options.precision)
    where = f"{translator.device}, {translator.precision.name}"
    print(f"model    {printable(info.path)}  {info.direction or 'direction not stated'}")
    print(f"         {architecture}, on {where}")
    for note in (*notes, *info.notes):
        print(f"note     {note}")
    print(f"pictures {len(jobs)} in {printable(options.source)} -> {printable(options.out)}")

    batch_size, batch_pixels = _batches(options.batch_size, translator.device.type)
    with counter(len(jobs), "translate") as advance:

        def on_done(_job: tree.Job, error: BadImageError | None) -> None:
            if error is not None:
                print(f"skipped  {error}", file=sys.stderr)
            advance()

        for problem in problems:
            print(f"skipped  {problem}", file=sys.stderr)
        summary = tree.run(
            translator,
            jobs,
            architecture.input_nc,
            batch_size,
            batch_pixels,
            overwrite=options.overwrite,
            on_done=on_done,
        )
    failed = len(summary.failed) + len(problems)
    kept = f", {summary.kept} there already and kept (--overwrite)" if summary.kept else ""
    if translator.captured is not None:
        served = translator.captured
        print(f"graphs   {served.replayed} of {served.replayed + served.plain} batches replayed")
    seconds = max(summary.seconds, 1e-9)
    print(
        f"done     {summary.written} written{kept}, {failed} skipped, {summary.seconds:.1f} s, "
        f"{summary.written / seconds:.2f} images/s, reading and writing included"
    )
    print(
        f"waited   {summary.waited_for_reading / seconds:.0%} of the time for pictures to be read, "
        f"{summary.waited_for_writing / seconds:.0%} for results to be written"
    )
    return FAILED if failed else 0


def _batches(chosen: int | Literal["auto"], device: str) -> tuple[int, int | None]:
    """Return most pictures and most pixels at once.

    One picture keeps a CPU busy, and so many pixels a GPU; more at once would take memory alone.
    """
    if chosen != "auto":
        return chosen, None
    return (16, 2**20) if device == "cuda" else (1, None)
