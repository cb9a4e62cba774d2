# SPDX-License-Identifier: MIT
"""Two ranks against one process with the joined batch, float64; and what ranks tell each other."""

import numpy as np
import pytest
import rank_work
import toy
import upstream_iteration
from PIL import Image
from rank_work import Raised, together

from cyclegan_fast.training import checkpoint

BOUND = 1e-11
# Biases in front of an instance norm: they change no output, and drift at random where trained.
DEAD = {
    f"{name}.{key}"
    for name, net in rank_work.doubled(toy.config()).items()
    for key in upstream_iteration.dead_biases(net)
}

CASES = {
    "walked by hand": dict(options=dict(batch_size=1, pool_size=50)),
    "one by one": dict(options=dict(batch_size=1, pool_size=50, merge="off")),
    "plain": dict(options=dict(batch_size=2, pool_size=0, accelerate=False)),
    "smaller batches": dict(options=dict(batch_size=2, pool_size=50), odd=True),
    "average, plateau": dict(options=dict(batch_size=1, pool_size=0, ema=0.9, lr_policy="plateau")),
    "full pools": dict(options=dict(batch_size=2, pool_size=4), draws=(2, 4)),
    "full pools, one by one": dict(
        options=dict(batch_size=2, pool_size=4, merge="off"), draws=(2, 4)
    ),
}


def alone(case):
    """The same in one process, whose pool is as large as all ranks' are together."""
    options = {**case["options"], "pool_size": 2 * case["options"]["pool_size"]}
    return rank_work.steps(**{**case, "options": options})


def largest_error(found, expected):
    """The largest relative difference of any loss of any step, or of any weight at the end."""
    errors = {}
    for number, (got, wanted) in enumerate(zip(found[0], expected[0], strict=True)):
        for name, value in wanted.items():
            errors[f"step {number}, loss {name}"] = abs(got[name] - value) / max(abs(value), 1e-3)
    return max([*errors.items(), *of_weights(found[1], expected[1])], key=lambda item: item[1])


def of_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name in DEAD:
            continue
        yield name, np.abs(found[name] - value).max() / max(np.abs(value).max(), 1e-300)


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one_process_with_the_joined_batch(name):
    first, second = together(rank_work.named_steps, CASES[name])
    expected = alone(CASES[name])
    where, error = largest_error(first, expected)
    assert error <= BOUND, f"{where} differs by {error:.2e}"
    assert first[0] == second[0] and first[2] == second[2] == expected[2]
    assert_same(first[1], second[1])


@pytest.mark.parametrize(("rule", "factor"), [("linear", 2), ("sqrt", 2**0.5)])
def test_the_rule_of_the_learning_rate_is_one_process_at_the_larger_rate(rule, factor):
    """Through the decay, too: twelve steps are three epochs, the last at half the rate."""
    options = dict(batch_size=1, pool_size=50)
    first, second = together(rank_work.named_steps, dict(options={**options, "lr_rule": rule}))
    case = dict(options={**options, "lr": factor * toy.config().lr})
    where, error = largest_error(first, alone(case))
    assert error <= BOUND, f"{where} differs by {error:.2e}"
    assert_same(first[1], second[1])
    # And the rate counts: at the rate that the rule does not ask for, all is different.
    assert largest_error(first, alone(dict(options=options)))[1] > 100 * BOUND


def test_other_weights_on_a_rank_are_overwritten_by_those_of_rank_0():
    case = CASES["walked by hand"]
    first, second = together(rank_work.named_steps, {**case, "other_weights": True})
    assert largest_error(first, alone(case))[1] <= BOUND
    assert_same(first[1], second[1])


@pytest.mark.parametrize(
    "wrong, name",
    [
        ("sum_of_gradients", "walked by hand"),
        ("sum_of_gradients", "one by one"),
        ("sum_of_losses", "walked by hand"),
        ("a_bucket_left_out", "walked by hand"),
        ("same_pictures_on_every_rank", "walked by hand"),
        ("equal_shares", "smaller batches"),
        ("weights_of_its_own", "walked by hand"),
    ],
)
def test_wrong_ranks_differ(wrong, name):
    case = {**CASES[name], "other_weights": wrong == "weights_of_its_own"}
    first, _ = together(rank_work.named_steps, {**case, "wrong": wrong})
    where, error = largest_error(first, alone(CASES[name]))
    assert error > 100 * BOUND, f"nothing noticed {wrong}; the largest is {where}: {error:.2e}"


def test_an_overflow_of_fp16_on_one_rank_is_skipped_by_all():
    first, second = together(rank_work.overflow_on_one_rank)
    assert first[:2] == second[:2] and first[1] >= 2
    assert_same(first[2], second[2])


def test_ranks_draw_their_dropout_apart_and_resume_it(tmp_path):
    whole = together(rank_work.dropout_after, tmp_path / "whole", [])
    halves = together(rank_work.dropout_after, tmp_path / "halves", [3])
    assert_same(whole[0], halves[0])
    assert_same(whole[1], halves[1])


# Pools that never fill, and a joined batch of two pictures whatever the number of ranks.
RUN = dict(pool_size=100, save_latest_freq=1000, print_freq=4)
OF = {1: dict(batch_size=2, **RUN), 2: dict(batch_size=1, **RUN)}


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    options = dict(checkpoints_dir=str(tmp_path / "a"), **OF[1])
    (expected,) = together(rank_work.whole_run, options, count=1)
    for stop, count in ((5, 2), (11, 1), (0, 2)):
        options = dict(checkpoints_dir=str(tmp_path / "b"), max_steps=stop, **OF[count])
        results = together(rank_work.whole_run, {**options, "continue_train": True}, count=count)
        assert not any(isinstance(result, Raised) for result in results), results
    first, second = results
    assert first["step"] == second["step"] == expected["step"] == 18
    where, error = max(of_weights(first["weights"], expected["weights"]), key=lambda item: item[1])
    assert error <= BOUND, f"{where} differs by {error:.2e}"
    assert_same(first["weights"], second["weights"])
    assert [row[:2] for row in first["reports"]] == [(12, 24), (14, 28), (16, 32), (18, 36)]
    assert first["pooled"] == second["pooled"] == 36 and expected["pooled"] == 72
    (note,) = [note for note in first["notes"] if "pooled" in note]
    assert note == (
        "the save is of 1 rank, and the run goes on with 2: 44 of 44 pooled pictures were dealt "
        "out anew"
    )
    assert second["reports"] == []
    once, thrice = (
        [line.split(",")[0] for line in (tmp_path / run / "run/losses.csv").read_text().split()]
        for run in "ab"
    )
    # Each start reports its last step too.
    assert thrice == sorted(
        {*once, "5", "11"}, key=lambda step: -1 if step == "step" else int(step)
    )


def test_a_save_of_two_ranks_is_one_of_rank_0_to_who_knows_of_no_ranks(tmp_path):
    options = dict(checkpoints_dir=str(tmp_path), max_steps=3, **OF[2])
    together(rank_work.whole_run, options)
    saved = checkpoint.saves(tmp_path / "run")[0][1]
    from safetensors.torch import load_file

    pools = load_file(saved / "pools.safetensors")
    assert set(pools) == {
        f"{rank}fake_{domain}/pictures" for rank in ("", "rank1/") for domain in "AB"
    }
    assert "rank1/generator/cpu" in load_file(saved / "run.safetensors")


def test_a_signal_to_one_rank_ends_all_at_the_same_step(tmp_path):
    options = dict(checkpoints_dir=str(tmp_path), **OF[2])
    first, second = together(rank_work.whole_run, options, 5, "signal")
    for result in (first, second):
        assert (result["step"], result["exit_code"]) == (5, 143)
        assert result["saved"] == "step-00000005"
    assert_same(first["weights"], second["weights"])


def test_a_rank_that_cannot_read_ends_all_after_a_save(tmp_path):
    options = dict(checkpoints_dir=str(tmp_path), **OF[2])
    first, second = together(rank_work.whole_run, options, 5, "fail")
    assert second == Raised("OSError", "the disk of rank 1 is gone")
    assert first.kind == "RankLostError" and first.text.startswith("rank 1 (process ")
    assert "the disk of rank 1 is gone" in first.text
    assert [step for step, _ in checkpoint.saves(tmp_path / "run")] == [5]


def test_a_folder_that_holds_a_run_is_refused_on_every_rank(tmp_path):
    options = dict(checkpoints_dir=str(tmp_path), max_steps=1, **OF[2])
    together(rank_work.whole_run, options)
    again = together(rank_work.whole_run, options)
    assert [result.kind for result in again] == ["CheckpointError"] * 2
    assert "--continue_train" in again[1].text


def test_batch_norm_is_refused():
    results = together(rank_work.whole_run, dict(norm="batch"))
    for result in results:
        assert result.kind == "ValueError" and "Use --norm instance" in result.text


def test_other_options_on_a_rank_are_refused(tmp_path):
    for result in together(rank_work.other_options, tmp_path):
        assert result.kind == "RanksDifferError"
        assert result.text.startswith("rank 1 (process ")
        assert "differs from rank 0 in --lr 0.0001 (rank 0: 0.0002)" in result.text
    assert not list(tmp_path.iterdir())


def test_other_pictures_on_a_rank_are_refused(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for place in [folder / domain for folder in folders for domain in ("trainA", "trainB")]:
        place.mkdir(parents=True)
        for index in range(3):
            pixels = np.random.default_rng(index).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png")
    options = dict(checkpoints_dir=str(tmp_path / "runs"), max_steps=2)
    assert together(rank_work.on_pictures, folders, options) == [2, 2]
    (folders[1] / "trainB" / "2.png").unlink()
    for result in together(rank_work.on_pictures, folders, options):
        assert result.kind == "RanksDifferError" and result.text.startswith("rank 1 (process ")
        assert "folder B 2 pictures" in result.text and "folder A" not in result.text


@pytest.mark.parametrize("accelerated", [True, False])
def test_an_accelerated_network_in_a_users_own_loop(accelerated):
    first, second = together(rank_work.user_loop, accelerated, 2)
    expected = rank_work.user_loop(not accelerated, 2, of=2)
    assert_same(first, second)
    changed = rank_work.weights_of(rank_work.doubled(toy.config()).G_A)
    for name, value in expected.items():
        assert np.abs(first[name] - value).max() <= 1e-10 * max(np.abs(value).max(), 1e-3), name
    assert any(not np.array_equal(changed[name], value) for name, value in first.items())
