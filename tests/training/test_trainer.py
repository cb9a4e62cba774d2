# SPDX-License-Identifier: MIT
"""The trainer's parts that the comparison with upstream does not reach."""

import numpy as np
import pytest
import torch
import toy

from cyclegan_fast import fusion
from cyclegan_fast.data.picked import PickedPictures
from cyclegan_fast.ops import PackedPictures
from cyclegan_fast.training import Trainer, build
from cyclegan_fast.training.arrangement import resolve_branches
from cyclegan_fast.training.losses import FAKE, REAL, adversarial_loss
from cyclegan_fast.training.networks import frozen


def weights(trainer):
    return {
        f"{name}.{key}": value.clone()
        for name, net in trainer.networks.items()
        for key, value in net.state_dict().items()
    }


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_networks_are_a_function_of_the_options_alone():
    torch.manual_seed(1)
    one = weights(Trainer(toy.config(seed=3)))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    other = weights(Trainer(toy.config(seed=3)))
    assert_equal(one, other)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "building drew from the caller's generator"
    third = weights(Trainer(toy.config(seed=4)))
    assert not torch.equal(one["G_A.model.1.weight"], third["G_A.model.1.weight"])
    assert not torch.equal(one["G_A.model.1.weight"], one["G_B.model.1.weight"])


@pytest.mark.parametrize(
    ("netG", "crop", "parameters"),
    [("resnet_9blocks", 256, 11378179), ("resnet_6blocks", 256, 7837699)],
)
def test_default_networks_have_upstreams_size(netG, crop, parameters):
    networks = build(toy.config(netG=netG, ngf=64, ndf=64, netD="basic", crop_size=crop))
    assert sum(p.numel() for p in networks.G_A.parameters()) == parameters
    assert sum(p.numel() for p in networks.D_A.parameters()) == 2764737


@pytest.mark.parametrize("netG", ["resnet_9blocks", "resnet_6blocks", "resnet_4blocks"])
def test_number_of_blocks(netG):
    net = build(toy.config(netG=netG)).G_A
    blocks = [m for m in net.model if hasattr(m, "conv_block")]
    assert f"resnet_{len(blocks)}blocks" == netG


def test_all_four_networks_are_accelerated_unless_told_otherwise():
    for _, net in Trainer(toy.config()).networks.items():
        assert fusion.explain(net).fused
    plain = Trainer(toy.config(accelerate=False))
    for _, net in plain.networks.items():
        assert "forward" not in vars(net)


def test_direction_swaps_the_domains():
    there, back = Trainer(toy.config()), Trainer(toy.config(direction="BtoA"))
    batch = toy.Data().batch(0, 1)
    swapped = {"A": batch["B"], "B": batch["A"]}
    a, b = there.step(batch), back.step(swapped)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert_equal(weights(there), weights(back))


def test_a_step_makes_its_pictures_itself():
    rng = np.random.default_rng(2)
    drawn = [rng.integers(0, 256, (40, 37, 3), dtype=np.uint8) for _ in range(3)]
    packed = PackedPictures.pack(drawn, [(36, 36)] * 3)
    picks = {"A": torch.tensor([[2, 1, 3, 1]]), "B": torch.tensor([[0, 4, 0, 0]])}
    for direction in ("AtoB", "BtoA"):
        config = toy.config(direction=direction)
        one, other = Trainer(config), Trainer(config)
        layout = one.memory_format
        picked = {
            side: PickedPictures(packed, picks[side], (32, 32), torch.float32, layout)
            for side in "AB"
        }
        made = {side: pictures.make() for side, pictures in picked.items()}
        for _ in range(2):
            a, b = one.step(picked), other.step(made)
            assert all(torch.equal(a[name], b[name]) for name in a)
        assert_equal(weights(one), weights(other))
        samples = one.sample(picked), other.sample(made)
        assert all(torch.equal(samples[0][name], samples[1][name]) for name in samples[1])


def test_pictures_of_another_dtype_become_the_networks():
    packed = PackedPictures.pack([np.full((32, 32, 3), 51, np.uint8)] * 2, [(32, 32)] * 2)
    picked = PickedPictures(
        packed, torch.tensor([[1, 0, 0, 0]]), (32, 32), torch.float64, torch.contiguous_format
    )
    one, other = Trainer(toy.config()), Trainer(toy.config())
    made = torch.full((1, 3, 32, 32), 51.0) / 255 * 2 - 1
    losses = one.step({"A": picked, "B": picked})
    torch.testing.assert_close(losses, other.step({"A": made, "B": made}))


def test_moving_average_of_the_generators():
    trainer, data = Trainer(toy.config(ema=0.75, norm="batch")), toy.Data()
    expected = {key: value.clone() for key, value in trainer.networks.G_A.state_dict().items()}
    for step in range(3):
        trainer.step(data.batch(step, 2))
        for key, value in trainer.networks.G_A.state_dict().items():
            trained = key.endswith(("weight", "bias"))
            expected[key] = 0.75 * expected[key] + 0.25 * value if trained else value.clone()
    averaged = trainer.generators[0].state_dict()
    assert averaged.keys() == expected.keys()
    for key, value in averaged.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-7)
    assert not any(p.requires_grad for p in trainer.generators[0].parameters())
    plain = Trainer(toy.config())
    assert plain.generators == plain.networks.generators


def test_samples_touch_nothing():
    trainer, data = Trainer(toy.config(norm="batch", dropout=True)), toy.Data()
    trainer.step(data.batch(0, 2))
    before, chance = weights(trainer), torch.get_rng_state()
    first, second = trainer.sample(data.batch(1, 2)), trainer.sample(data.batch(1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_equal(weights(trainer), before)
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(net.training for _, net in trainer.networks.items())


def test_dead_biases_of_an_accelerated_network_stay():
    trainer, data = Trainer(toy.config()), toy.Data()
    before = weights(trainer)
    for step in range(3):
        trainer.step(data.batch(step, 1))
    after = weights(trainer)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    dead = {name for name in before if name.endswith(".bias")} - moved
    # 1 stem, 2 down, 4 in two blocks, 2 up: each in front of an instance norm; the head is not.
    assert len([name for name in dead if name.startswith("G_A")]) == 9
    assert {"G_A.model.19.bias", "D_A.model.0.bias"} <= moved
    assert all(name in moved for name in before if name.endswith(".weight"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bit_keeps_weights_moments_and_losses_in_32(precision):
    trainer, data = Trainer(toy.config(precision=precision)), toy.Data()
    losses = trainer.step(data.batch(0, 1))
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    for name, tensors in trainer.state_dict()["tensors"].items():
        if name not in ("pools", "run"):
            assert {t.dtype for t in tensors.values()} == {torch.float32}, name
    pictures = trainer.state_dict()["tensors"]["pools"]["fake_A/pictures"]
    assert pictures.dtype == trainer.precision.half


def test_losses_come_without_graph_and_by_upstreams_names():
    losses = Trainer(toy.config(lambda_identity=0.0)).step(toy.Data().batch(0, 1))
    names = ["D_A", "G_A", "cycle_A", "idt_A", "D_B", "G_B", "cycle_B", "idt_B"]
    assert list(losses) == names
    assert all(loss.dim() == 0 and not loss.requires_grad for loss in losses.values())
    assert losses["idt_A"] == losses["idt_B"] == 0


def test_the_learning_rate_follows_the_epochs():
    trainer, data = Trainer(toy.config(n_epochs=1, n_epochs_decay=2), steps_per_epoch=2), toy.Data()
    rates, epochs = [], []
    for step in range(6):
        epochs.append(trainer.epoch)
        trainer.step(data.batch(step, 1))
        rates.append(trainer.lr)
        for adam in (trainer.engine.optimizer_G, trainer.engine.optimizer_D):
            assert adam.lr == trainer.lr
    assert epochs == [1, 1, 2, 2, 3, 3]
    assert rates == pytest.approx([2e-4] * 2 + [2e-4 * 2 / 3] * 2 + [2e-4 / 3] * 2)


def test_plateau_hears_the_mean_cycle_loss():
    trainer = Trainer(toy.config(lr_policy="plateau"), steps_per_epoch=3)
    data, heard, sums = toy.Data(), [], []
    trainer.schedule.end_epoch = heard.append
    for step in range(7):
        losses = trainer.step(data.batch(step, 1))
        sums.append(float(losses["cycle_A"] + losses["cycle_B"]))
    assert heard == pytest.approx([sum(sums[:3]) / 3, sum(sums[3:6]) / 3])


def test_frozen_puts_back_what_it_found():
    net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    net[0].weight.requires_grad_(False)
    with pytest.raises(KeyError), frozen(net):
        assert not any(p.requires_grad for p in net.parameters())
        raise KeyError
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True]


@pytest.mark.parametrize("mode", ["lsgan", "vanilla", "wgangp"])
def test_adversarial_losses_at_known_values(mode):
    prediction = torch.tensor([0.0, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    log1p = torch.nn.functional.softplus
    expected = {
        "lsgan": (((prediction - 1) ** 2).mean(), (prediction**2).mean()),
        "vanilla": (log1p(-prediction).mean(), log1p(prediction).mean()),
        "wgangp": (-prediction.mean(), prediction.mean()),
    }[mode]
    for target, value in zip((REAL, FAKE), expected, strict=True):
        loss = adversarial_loss(prediction, target, mode)
        assert loss.dtype == torch.float64
        torch.testing.assert_close(loss, value)
        ours, theirs = (
            torch.autograd.grad(x, prediction, retain_graph=True) for x in (loss, value)
        )
        torch.testing.assert_close(ours, theirs)
    assert adversarial_loss(prediction.bfloat16(), REAL, mode).dtype == torch.float32


def test_an_unknown_adversarial_loss():
    with pytest.raises(ValueError, match="gan_mode must be lsgan, vanilla or wgangp, got 'hinge'"):
        adversarial_loss(torch.zeros(1), REAL, "hinge")


def spectral(config):
    networks = build(config)
    torch.nn.utils.parametrizations.spectral_norm(networks.D_A.model[0])
    return networks


@pytest.mark.parametrize(
    ("changes", "make", "merges"),
    [
        ({}, build, True),
        ({"norm": "none"}, build, True),
        ({"merge": "off"}, build, False),
        ({"dropout": True}, build, False),
        ({"norm": "batch"}, build, False),
        ({}, spectral, False),  # every pass moves its vectors
    ],
)
def test_pictures_go_together_only_where_no_pass_can_tell(changes, make, merges):
    config = toy.config(**changes)
    trainer = Trainer(config, make(config))
    calls = []
    trainer.networks.D_A.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    trainer.step(toy.Data().batch(0, 1))
    assert calls == ([1, 2] if merges else [1, 1, 1])


def test_merging_is_refused_where_a_pass_can_tell():
    with pytest.raises(ValueError, match="merge is on, but dropout, batch norm and buffers"):
        Trainer(toy.config(merge="on", dropout=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"join": "on", "dropout": True}, "join is on, but dropout, batch norm and buffers see"),
        ({"merge": "off", "pair": "on"}, "only where weight gradients are joined"),
        ({"merge": "on", "join": "off", "pair": "on"}, "only where weight gradients are joined"),
        ({"branches": "on"}, "a CPU does one thing after another"),
    ],
)
def test_what_an_arrangement_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        Trainer(toy.config(**changes))


def test_branches_are_refused_where_a_pass_can_tell():
    cuda, config = torch.device("cuda"), toy.config(branches="on")
    assert resolve_branches(config, cuda, ordered=False)
    assert not resolve_branches(toy.config(branches="off"), cuda, ordered=False)
    assert not resolve_branches(toy.config(), cuda, ordered=True)
    with pytest.raises(ValueError, match="see the order of the passes"):
        resolve_branches(config, cuda, ordered=True)
