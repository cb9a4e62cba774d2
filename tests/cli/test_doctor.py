# SPDX-License-Identifier: MIT
"""doctor: every op is run for real, and what is broken is said."""

import json

import pytest
import torch

from cyclegan_fast import backend, ops
from cyclegan_fast.cli import doctor, selfcheck


def test_everything_is_shown_and_nothing_is_broken(run):
    done = run("doctor")
    assert done.status == 0, done.out
    for said in ("torch", "CPU ", "GPU", "compiled", "disk", "do  ", *selfcheck.stems()):
        assert said in done.out
    assert "WRONG" not in done.out


def test_json_holds_the_same(run):
    facts = json.loads(run("doctor", "--json").out)
    assert facts["broken"] == [] and facts["advice"]
    assert {row["op"] for row in facts["ops"]} == set(selfcheck.stems())
    for row in facts["ops"]:
        assert row["served_by"] == backend.resolve(row["op"], row["device"], torch.float32)
        assert row["served_by"] in {check["backend"] for check in row["checks"]}
        assert set(row["others"]) == set(backend.BACKENDS[1:]) - {row["served_by"]}


def test_every_op_has_a_check():
    assert set(selfcheck.SAMPLES) == set(selfcheck.stems())


@pytest.mark.parametrize("op", selfcheck.stems())
def test_the_samples_keep_away_from_kinks_and_use_every_gradient(op):
    """Where an input sits on a kink, two right answers differ; where a gradient is 0, none does."""
    results = selfcheck._results(getattr(ops, f"{op}_reference"), op, "cpu", torch.float64)
    single = selfcheck._results(getattr(ops, f"{op}_reference"), op, "cpu", torch.float32)
    for true, rounded in zip(results, single, strict=True):
        assert true.abs().max() > 1e-4
        assert (rounded.double() - true).abs().max() < 1e-4 * true.abs().max()


@pytest.mark.parametrize("op", selfcheck.stems())
def test_a_wrong_kernel_is_found(op, run, monkeypatch):
    right = getattr(ops, op)

    def wrong(*arguments, **options):
        made = right(*arguments, **options)
        if made is None:  # it writes into its first argument
            return [written.mul_(1 + 1e-5) for written in arguments[0]]
        return made * (1 + 1e-5) if torch.is_tensor(made) else (made[0] * (1 + 1e-5), *made[1:])

    monkeypatch.setattr(ops, op, wrong)
    done = run("doctor")
    assert done.status == 1
    assert "WRONG" in done.out and f"BROKEN    {op} on cpu by" in done.out
    assert "CYCLEGAN_FAST_BACKEND=reference" in done.out


def test_a_kernel_that_raises_is_found(run, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(ops, "l1_loss", broken)
    done = run("doctor")
    assert done.status == 1 and "RuntimeError: illegal instruction" in done.out


def test_what_is_missing_and_what_to_do():
    facts = doctor.examine()
    facts["versions"]["pillow"] = "missing"
    facts["compiled"] |= {"cpu": False, "cpu_why_not": "_C.so does not load here: no such symbol"}
    facts["broken"] = doctor._broken(facts)
    facts["advice"] = doctor._advice(facts)
    text = doctor.text(facts)
    assert "BROKEN    package pillow is missing" in text and "pip install pillow" in text
    assert "does not load here" in text and "install g++" in text
