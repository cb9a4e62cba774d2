# SPDX-License-Identifier: MIT
"""One training run from its options to its report; `train` and `demo` are two ways into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cyclegan_fast.cli import banner, record
from cyclegan_fast.cli.failures import UsageError
from cyclegan_fast.cli.reporter import RunReporter
from cyclegan_fast.data.folders import scan
from cyclegan_fast.data.unpaired import UnpairedDataset
from cyclegan_fast.errors import DataError, printable, size_text
from cyclegan_fast.io.pictures import write_bytes
from cyclegan_fast.report.evaluation import domains, test_pictures
from cyclegan_fast.training import memory
from cyclegan_fast.training.config import TrainConfig
from cyclegan_fast.training.joining import leads
from cyclegan_fast.training.loop import train
from cyclegan_fast.training.reporter import RunInfo, RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_FILE = "config.yaml"
SHOWN = 4


def training_pictures(config: TrainConfig) -> UnpairedDataset:
    """Return the pictures to train on.

    Raises:
        DataError: folders are missing or empty, or a domain has one picture only.
    """
    data = UnpairedDataset(
        config.dataroot,
        config.phase,
        preprocess=config.preprocess,
        load_size=config.load_size,
        crop_size=config.crop_size,
        flip=config.flip,
        input_nc=config.input_nc,
        output_nc=config.output_nc,
        direction=config.direction,
        serial_batches=config.serial_batches,
        max_dataset_size=config.max_dataset_size,
        seed=config.seed,
    )
    for side, count in data.sizes.items():
        if count < 2:
            folder = Path(config.dataroot) / f"{config.phase}{side}"
            raise DataError(
                f"{printable(folder)} holds one usable picture, and a domain is learnt from many: "
                "2 are the least, a few hundred give good results. Add pictures there."
            )
    return data


def sample_pictures(config: TrainConfig) -> tuple[Mapping[str, Any], str]:
    """Return the pictures that are translated during training, and where they come from."""
    try:
        scan(config.dataroot, "test")
        phase = "test"
    except DataError:
        phase = config.phase
    pictures = test_pictures(config, phase)
    count = min(SHOWN, *pictures.sizes.values())
    return pictures.batch(0, count), f"samples: {phase}A, {phase}B"


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let PyTorch and our kernels use so many threads in the block; 0 for PyTorch's choice."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Run:
    """A run: options, pictures, training, record.

    Args:
        config: valid options with a dataroot.
        notes: lines to show at the start.
        command: sys.argv, for the record.
        names: of the domains in folders A and B.
    """

    def __init__(
        self,
        config: TrainConfig,
        notes: list[str],
        command: list[str],
        names: tuple[str, str] = ("A", "B"),
    ) -> None:
        self.config = config
        self.names = names
        self.record: dict[str, Any] = {}
        self._notes = notes
        self._command = record.command_line(command)
        self._start_images = 0

    def train(self) -> RunResult:
        """Train until the end or a signal; returns how it ended.

        Raises:
            DataError, CheckpointError, NonFiniteError, LossScaleError, RanksDifferError,
            RankLostError: see `training.loop.train`.
        """
        if Path(self.config.checkpoints_dir).is_file():
            raise UsageError(f"--checkpoints_dir {self.config.checkpoints_dir} is a file")
        self.data = training_pictures(self.config)
        if not leads():
            return train(self.config, self.data)
        samples, self._samples_from = sample_pictures(self.config)
        reporter = RunReporter(self._begin, domains(self.config, self.names))
        try:
            result = train(self.config, self.data, reporter, samples)
        finally:
            reporter.close()
        device = result.trainer.device
        if device.type == "cuda":
            # On a CPU the system's figure counts pictures, libraries and what was freed long ago.
            peak = size_text(torch.cuda.max_memory_allocated(device))
            found = self._found
            told = "" if isinstance(found, str) else f", {size_text(found.peak)} predicted"
            print(f"memory   {peak} at the peak, with the libraries' workspaces{told}")
        images = result.trainer.images - self._start_images
        record.end(result.run_dir, self.record, result, images)
        return result

    def _begin(self, info: RunInfo) -> None:
        self._found = memory.predict(info.trainer, info.picture_bytes)
        for line in banner.lines(info, self.data, self._samples_from, self._notes, self._found):
            print(line, flush=True)
        self._start_images = info.trainer.images
        found = {
            "dataroot": str(Path(self.config.dataroot).resolve()),
            "pictures": self.data.sizes,
            "skipped": [str(bad) for bad in self.data.report.bad],
        }
        self.record = record.begin(info.run_dir, info.trainer, self._command, found)
        values = {**self.config.to_dict(), "dataroot": found["dataroot"]}
        for name in ("name", "checkpoints_dir", "continue_train"):
            del values[name]  # where the run is and how it was started, not what it is
        write_bytes(info.run_dir / CONFIG_FILE, as_yaml(values).encode())


def as_yaml(values: dict[str, Any]) -> str:
    """Return options as YAML that ``--config`` reads."""
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def changed(config: TrainConfig) -> list[dict[str, Any]]:
    """Return every option with its value, and whether it is the default."""
    defaults = TrainConfig()
    return [
        {
            "name": option.name,
            "value": getattr(config, option.name),
            "changed": getattr(config, option.name) != getattr(defaults, option.name),
        }
        for option in dataclasses.fields(config)
    ]
