# SPDX-License-Identifier: MIT
"""Generators found from shapes alone, in files of every era and make."""

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cyclegan_fast.errors import WeightsError
from cyclegan_fast.io.weights import load_generator
from cyclegan_fast.models import (
    NLayerDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    UnetGenerator,
)


def randomised(net, seed=0):
    """Weights and buffers of a size that makes every one of them count in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(0.3 * noise + (1 + noise.abs() if "running_var" in name else 0))
    return net.eval()


def assert_same_network(path, net, size=64, nc=3, **options):
    loaded, info = load_generator(path, **options)
    x = 0.5 * torch.randn(1, nc, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))
    assert not loaded.training
    return info


RESNETS = {
    "9 blocks": {"n_blocks": 9},
    "6 blocks, dropout": {"n_blocks": 6, "use_dropout": True},
    "batch": {"n_blocks": 2, "norm": "batch"},
    "no norm": {"n_blocks": 2, "norm": "none"},
    "zero padding": {"n_blocks": 2, "padding_type": "zero"},
    "zero padding, dropout": {"n_blocks": 2, "padding_type": "zero", "use_dropout": True},
    "no blocks": {"n_blocks": 0},
    "other channels": {"n_blocks": 1, "input_nc": 1, "output_nc": 3},
}


@pytest.mark.parametrize("options", RESNETS.values(), ids=RESNETS)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_resnets(tmp_path, options, ending):
    options = {"input_nc": 3, "output_nc": 3, "ngf": 4} | options
    net = randomised(ResnetGenerator(**options))
    path = tmp_path / f"net.{ending}"
    save_file(net.state_dict(), path) if ending != "pth" else torch.save(net.state_dict(), path)
    found = assert_same_network(path, net, size=32, nc=options["input_nc"]).architecture
    assert found.name == f"resnet_{options['n_blocks']}blocks"
    assert (found.input_nc, found.output_nc) == (options["input_nc"], options["output_nc"])
    assert found.norm == options.get("norm", "instance") and not found.affine
    assert found.dropout == options.get("use_dropout", False)
    assert found.padding == options.get("padding_type", "reflect")


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("downs", [5, 7])
def test_unets(tmp_path, norm, downs):
    net = randomised(UnetGenerator(3, 3, downs, ngf=2, norm=norm))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    found = assert_same_network(tmp_path / "net.pth", net, size=1 << downs).architecture
    assert (found.name, found.norm, found.multiple) == (f"unet_{1 << downs}", norm, 1 << downs)


def edited(net, edit):
    state = OrderedDict()
    for name, tensor in net.state_dict().items():
        edit(state, name, tensor)
    return state


def test_prefixes_of_wrappers(tmp_path):
    net = randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=2))
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        state = {prefix + name: tensor for name, tensor in net.state_dict().items()}
        torch.save(state, tmp_path / "net.pth")
        assert assert_same_network(tmp_path / "net.pth", net).notes


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_running_statistics_of_old_instance_norms_are_dropped(tmp_path, counters, zipped):
    net = randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=2))
    state = OrderedDict(net.state_dict())
    for name, module in net.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            state[f"{name}.running_mean"] = torch.randn(module.num_features)
            state[f"{name}.running_var"] = torch.rand(module.num_features)
            if counters:
                state[f"{name}.num_batches_tracked"] = torch.tensor(9)
    path = tmp_path / "net.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    info = assert_same_network(path, net)
    assert "dropped" in info.notes[0]


def test_missing_biases_in_front_of_instance_norms_are_zero(tmp_path):
    net = randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=1))
    state = OrderedDict(net.state_dict())
    last = max(int(name.split(".")[1]) for name in state)
    for name in [n for n in state if n.endswith(".bias") and not n.startswith(f"model.{last}.")]:
        state[name].zero_()
        del state[name]
    for name, module in net.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            state[f"{name}.running_mean"] = torch.zeros(module.num_features)
            state[f"{name}.running_var"] = torch.ones(module.num_features)
    torch.save(state, tmp_path / "net.pth")
    assert_same_network(tmp_path / "net.pth", net)


def with_affine_norms(net):
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                setattr(module, name, nn.InstanceNorm2d(child.num_features, affine=True))
    return net


def test_affine_instance_norms_and_blocks_of_another_name(tmp_path):
    """The layout of the wheel vintagify 0.1.2: `block` for conv_block, norms with weights."""
    net = randomised(with_affine_norms(ResnetGenerator(3, 3, ngf=4, n_blocks=9)))
    state = {name.replace("conv_block", "block"): t for name, t in net.state_dict().items()}
    torch.save(state, tmp_path / "G_A2B_epoch33.pth")
    info = assert_same_network(tmp_path / "G_A2B_epoch33.pth", net)
    assert info.architecture.affine and info.direction == "AtoB"
    assert str(info.architecture) == (
        "resnet_9blocks (ngf 4, affine instance norm, 3 -> 3 channels)"
    )


def test_files_of_early_2017_are_either_norm(tmp_path):
    """Weight, bias and statistics beside a convolution's bias: both norms were saved so."""
    affine = randomised(with_affine_norms(ResnetGenerator(3, 3, ngf=4, n_blocks=1)))
    batch = randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=1, norm="batch"), seed=2)
    state = OrderedDict(affine.state_dict())
    for name, module in affine.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            for entry in ("running_mean", "running_var"):
                state[f"{name}.{entry}"] = batch.state_dict()[f"{name}.{entry}"]
    torch.save(state, tmp_path / "net.pth")
    info = assert_same_network(tmp_path / "net.pth", affine)
    assert any("--norm batch" in note for note in info.notes)

    loaded, _ = load_generator(tmp_path / "net.pth", norm="batch")
    for name, module in list(batch.named_modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is None:
            module.bias = nn.Parameter(state[f"{name}.bias"])
    entries = {name for name in batch.state_dict() if "tracked" not in name}
    batch.load_state_dict({k: v for k, v in state.items() if k in entries}, strict=False)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), batch(x), rtol=1e-4, atol=1e-5)


def test_batch_norm_without_counters(tmp_path):
    net = randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=1, norm="batch"))
    state = {n: t for n, t in net.state_dict().items() if "num_batches_tracked" not in n}
    torch.save(state, tmp_path / "net.pth")
    assert_same_network(tmp_path / "net.pth", net)


def test_half_precision_files_become_float32(tmp_path):
    net = randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=1)).bfloat16()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    loaded, _ = load_generator(tmp_path / "net.pth")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.model[1].weight, net.model[1].weight.float())


def test_a_generator_inside_a_checkpoint(tmp_path):
    ab, ba = (randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=1), seed) for seed in (1, 2))
    judge = NLayerDiscriminator(3, ndf=4)
    one = {"epoch": 3, "state_dict": ab.state_dict(), "D": judge.state_dict()}
    torch.save(one, tmp_path / "one.pth")
    assert_same_network(tmp_path / "one.pth", ab)
    both = {"netG_A2B": ab.state_dict(), "netG_B2A": ba.state_dict(), "D": judge.state_dict()}
    torch.save(both, tmp_path / "both.pth")
    assert_same_network(tmp_path / "both.pth", ba, direction="BtoA")
    flat = {f"G_A.{n}": t for n, t in ab.state_dict().items()}
    flat |= {f"G_B.{n}": t for n, t in ba.state_dict().items()}
    torch.save({"state_dict": flat}, tmp_path / "flat.pth")
    assert_same_network(tmp_path / "flat.pth", ab, direction="AtoB")
    with pytest.raises(WeightsError, match="several generators"):
        load_generator(tmp_path / "both.pth")


def test_folders_of_upstream(tmp_path):
    ab, ba = (randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=1), seed) for seed in (1, 2))
    for name, net in (("G_A", ab), ("G_B", ba)):
        torch.save(net.state_dict(), tmp_path / f"5_net_{name}.pth")
        torch.save(
            randomised(ResnetGenerator(3, 3, 4, n_blocks=1), 3).state_dict(),
            tmp_path / f"15_net_{name}.pth",
        )
    info = assert_same_network(tmp_path, randomised(ResnetGenerator(3, 3, 4, n_blocks=1), 3))
    assert info.path.name == "15_net_G_A.pth"
    for name, net in (("G_A", ab), ("G_B", ba)):
        torch.save(net.state_dict(), tmp_path / f"latest_net_{name}.pth")
    assert_same_network(tmp_path, ab)
    assert_same_network(tmp_path, ba, direction="BtoA")
    with pytest.raises(WeightsError, match="latest_net_G_B.pth"):
        load_generator(tmp_path / "latest_net_G_A.pth", direction="BtoA")


def test_what_is_no_generator_is_named(tmp_path):
    said = {
        "PatchGAN": NLayerDiscriminator(3, ndf=4).state_dict(),
        "pixel": PixelDiscriminator(3, ndf=4).state_dict(),
        r"2 tensors such as weight \(2, 3\)": nn.Linear(3, 2).state_dict(),
        "no tensors": {"epoch": 3},
        "one tensor": torch.zeros(3),
    }
    net = randomised(ResnetGenerator(3, 3, ngf=4, n_blocks=2))
    for name in ("model.10.conv_block.5.weight", "model.11.conv_block.1.bias"):
        state = OrderedDict(net.state_dict())
        del state[name]
        said[f"resnet_2blocks.* misses {name}"] = state
    state = OrderedDict(net.state_dict())
    state["model.4.weight"] = torch.zeros(8, 4, 5, 5)
    said[r"model.4.weight of shape \(8, 4, 5, 5\) instead of \(8, 4, 3, 3\)"] = state
    for text, wrote in said.items():
        torch.save(wrote, tmp_path / "net.pth")
        with pytest.raises(WeightsError, match=text):
            load_generator(tmp_path / "net.pth")


def test_diverged_weights_and_missing_files_are_refused(tmp_path):
    net = ResnetGenerator(3, 3, ngf=4, n_blocks=1)
    net.model[4].weight.data[0, 0, 0, 0] = float("nan")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"model.4.weight first"):
        load_generator(tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="no such file"):
        load_generator(tmp_path / "absent.pth")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="safetensors"):
        load_generator(tmp_path / "a.safetensors")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.jpg").touch()
    with pytest.raises(WeightsError, match="found there: photo.jpg"):
        load_generator(tmp_path / "folder")
    with pytest.raises(ValueError, match="AtoB or BtoA"):
        load_generator(tmp_path / "net.pth", direction="AtoC")
