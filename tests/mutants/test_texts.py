# SPDX-License-Identifier: MIT
"""Every mutant still fits its kernel: the mutants themselves are run by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import cuda_mutants  # noqa: E402
import hopper_mutants  # noqa: E402
import triton_mutants  # noqa: E402

ROOT = HERE.parents[1]


@pytest.mark.parametrize(
    ("folder", "mutants"),
    [
        ("csrc", cuda_mutants.MUTANTS + hopper_mutants.MUTANTS),
        ("cyclegan_fast/ops", triton_mutants.MUTANTS),
    ],
    ids=["cuda", "triton"],
)
def test_each_changes_one_place_of_its_file(folder, mutants):
    for mutant in mutants:
        found = (ROOT / folder / mutant.file).read_text().count(mutant.right)
        assert found == 1, f"{mutant.file}: {mutant.fault}: {found} places"
        assert mutant.right != mutant.wrong
    assert len({(mutant.file, mutant.fault) for mutant in mutants}) == len(mutants)
