# SPDX-License-Identifier: MIT
"""The pool of generated pictures against upstream's rule, written as a plain list."""

import numpy as np
import pytest
import torch

from cyclegan_fast.training.pool import ImagePool, PoolDraws, RaggedPool, decide, draw

CPU = torch.device("cpu")


def upstreams_rule(images, stored, size, chance):
    """Upstream's query, one picture after the other; `stored` is changed."""
    shown = []
    for i, image in enumerate(images):
        if len(stored) < size:
            stored.append(image)
            shown.append(image)
        elif chance.coin[i] > 0.5:
            shown.append(stored[chance.slot[i]])
            stored[chance.slot[i]] = image
        else:
            shown.append(image)
    return shown


def batches(count, n, *shape):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((n, *shape), generator=generator) * 2 - 1 for _ in range(count)]


@pytest.mark.parametrize("make", [ImagePool, RaggedPool])
@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_follows_upstreams_rule(make, size, n):
    pool, stored = make(size), []
    for step, pictures in enumerate(batches(40, n, 2, 3, 3)):
        chance = draw(0, "test", step, n, size)
        expected = upstreams_rule(pictures.split(1), stored, size, chance)
        shown = pool.query(pictures, pool.decide(chance, CPU))
        assert torch.equal(shown, torch.cat(expected)), step
    state = pool.state_dict()
    kept = torch.cat(list(state.values()))
    assert torch.equal(kept, torch.cat(stored))


@pytest.mark.parametrize("make", [ImagePool, RaggedPool])
def test_a_picture_stored_and_returned_in_one_batch(make):
    pool = make(1)
    first, second, third = batches(1, 3, 1, 2, 2)[0].split(1)
    # The first fills the pool, the second takes it out again, the third takes the second.
    chance = PoolDraws(np.array([0.0, 0.9, 0.9]), np.array([0, 0, 0]))
    shown = pool.query(torch.cat([first, second, third]), pool.decide(chance, CPU))
    assert torch.equal(shown, torch.cat([first, first, second]))
    assert torch.equal(torch.cat(list(pool.state_dict().values())), third)


def test_half_swaps_and_every_slot_is_used():
    swaps, slots, steps, size = 0, set(), 4000, 5
    for step in range(steps):
        decision, stored = decide(draw(3, "pool/fake_A", step, 1, size), size, size)
        assert stored == size
        if decision.take[0] < size:
            swaps += 1
            slots.add(int(decision.take[0]))
    assert abs(swaps - steps / 2) < 5 * (steps / 4) ** 0.5
    assert slots == set(range(size))


def test_the_two_pools_draw_differently():
    one = [draw(0, "pool/fake_A", step, 1, 50).coin[0] for step in range(8)]
    other = [draw(0, "pool/fake_B", step, 1, 50).coin[0] for step in range(8)]
    assert not set(one) & set(other)


@pytest.mark.parametrize("make", [ImagePool, RaggedPool])
def test_size_0_hands_through_without_gradient(make):
    pool = make(0)
    pictures = batches(1, 2, 1, 2, 2)[0].requires_grad_()
    shown = pool.query(pictures, pool.decide(draw(0, "test", 0, 2, 0), CPU))
    assert torch.equal(shown, pictures) and not shown.requires_grad
    assert not pool.state_dict()


@pytest.mark.parametrize("make", [ImagePool, RaggedPool])
def test_goes_on_from_its_state(make):
    whole, first, second = make(4), make(4), make(4)
    data = batches(20, 2, 1, 2, 2)
    for step, pictures in enumerate(data):
        chance = draw(1, "test", step, 2, 4)
        expected = whole.query(pictures, whole.decide(chance, CPU))
        pool = first if step < 9 else second
        if step == 9:
            second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()}, CPU)
        assert torch.equal(pool.query(pictures, pool.decide(chance, CPU)), expected), step


@pytest.mark.parametrize("make", [ImagePool, RaggedPool])
def test_a_smaller_pool_than_the_saved_one_is_refused(make):
    pool = make(4)
    pictures = batches(1, 3, 1, 2, 2)[0]
    pool.query(pictures, pool.decide(draw(0, "test", 0, 3, 4), CPU))
    with pytest.raises(ValueError, match="pool_size must be 3 or more"):
        make(2).load_state_dict(pool.state_dict(), CPU)


@pytest.mark.parametrize("make", [ImagePool, RaggedPool])
def test_what_is_not_finite_never_comes_back(make):
    pool = make(2)
    bad = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.5]).reshape(1, 1, 2, 2)
    pool.query(bad, pool.decide(draw(0, "test", 0, 1, 2), CPU))
    kept = torch.cat(list(pool.state_dict().values())).flatten()
    assert kept.tolist() == [0.0, 1.0, -1.0, 0.5]


def test_pictures_of_changing_size():
    ragged, fixed = RaggedPool(2), ImagePool(2)
    tall, wide = torch.ones(1, 1, 4, 2), torch.ones(1, 1, 2, 4)
    fill = PoolDraws(np.array([0.0]), np.array([0]))
    swap = PoolDraws(np.array([0.9]), np.array([0]))
    for pictures in (tall, wide):
        assert ragged.query(pictures, ragged.decide(fill, CPU)).shape == pictures.shape
    assert ragged.query(wide, ragged.decide(swap, CPU)).shape == tall.shape
    both = PoolDraws(np.array([0.9, 0.0]), np.array([1, 0]))
    with pytest.raises(ValueError, match="must have one size.*--batch_size 1"):
        ragged.query(torch.ones(2, 1, 8, 8), ragged.decide(both, CPU))
    fixed.query(tall, fixed.decide(fill, CPU))
    with pytest.raises(ValueError, match=r"must be \[1, 4, 2\].*got \[1, 2, 4\]"):
        fixed.query(wide, fixed.decide(fill, CPU))


def test_layout_is_kept():
    pool = ImagePool(3, torch.channels_last)
    for step, pictures in enumerate(batches(6, 2, 3, 4, 4)):
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        shown = pool.query(pictures, pool.decide(draw(0, "test", step, 2, 3), CPU))
        assert shown.is_contiguous(memory_format=torch.channels_last)
