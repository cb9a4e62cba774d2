# SPDX-License-Identifier: MIT
"""Options: upstream's names and defaults, and errors that say what to do."""

import ast
import dataclasses
import inspect
import json
import math
import textwrap

import pytest
import torch

from cyclegan_fast.training import TrainConfig
from cyclegan_fast.training.precision import describe, resolve_device, resolve_precision

# Upstream's options of training at commit 2a7afba and their defaults for the cycle_gan model;
# where ours is named positively (no_flip -> flip), with the value that means the same.
UPSTREAM = dict(
    name="experiment_name", checkpoints_dir="./checkpoints", phase="train", input_nc=3, output_nc=3,
    ngf=64, ndf=64, netG="resnet_9blocks", netD="basic", n_layers_D=3, norm="instance",
    init_type="normal", init_gain=0.02, dropout=False, direction="AtoB", serial_batches=False,
    num_threads=4, batch_size=1, load_size=286, crop_size=256, max_dataset_size=math.inf,
    preprocess="resize_and_crop", flip=True, n_epochs=100, n_epochs_decay=100, epoch_count=1,
    lr=0.0002, beta1=0.5, lr_policy="linear", lr_decay_iters=50, gan_mode="lsgan", pool_size=50,
    lambda_A=10.0, lambda_B=10.0, lambda_identity=0.5, print_freq=100, display_freq=400,
    save_latest_freq=5000, save_epoch_freq=5, save_by_iter=False, continue_train=False,
)  # fmt: skip


def test_names_and_defaults_are_upstreams():
    config = TrainConfig().validate()
    assert {name: getattr(config, name) for name in UPSTREAM} == UPSTREAM


def test_every_option_explains_itself():
    tree = ast.parse(textwrap.dedent(inspect.getsource(TrainConfig)))
    body = tree.body[0].body
    fields = [node for node in body if isinstance(node, ast.AnnAssign)]
    assert len(fields) == len(dataclasses.fields(TrainConfig))
    for node in fields:
        after = body[body.index(node) + 1]
        assert isinstance(after, ast.Expr) and after.value.value.endswith("."), node.target.id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(crop_size=320), r"crop_size must be at most load_size \(286\), got 320. Use --load_"),
        (dict(netG="resnet_9block"), r"got 'resnet_9block' \(did you mean resnet_9blocks\?\)"),
        (dict(norm="sync_instance"), r"one of instance, .* \(did you mean instance\?\)"),
        (dict(gan_mode="wgan"), r"\(did you mean wgangp\?\)"),
        (dict(precision="float16"), r"\(did you mean fp16\?\)"),
        (dict(lr_policy="lambda"), "lr_policy must be one of linear, step, plateau, cosine"),
        (dict(crop_size=254), "multiple of 4 for netG resnet_9blocks, got 254. Use --crop_size 25"),
        (dict(netG="unet_256", crop_size=128), "multiple of 256 .* Use --crop_size 256"),
        (dict(crop_size=16, load_size=16), "crop_size must be 24 or more for a discriminator of 3"),
        (dict(input_nc=1), "lambda_identity must be 0 when input_nc and output_nc differ"),
        (dict(batch_size=0), "batch_size must be 1 or more, got 0"),
        (dict(lambda_A=-1.0), "lambda_A must be 0 or more"),
        (dict(lambda_B=math.inf), "lambda_B must be finite"),
        (dict(lambda_A=math.nan), "lambda_A must be 0 or more, got nan"),
        (dict(lr=0.0), "lr must be above 0"),
        (dict(beta1=1.0), r"beta1 must be in \[0, 1\)"),
        (dict(seed=2**63), r"seed must be below 2\*\*63"),
        (dict(epoch_count=201), r"must reach epoch_count \(201\)"),
        (dict(device="gpu"), "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (dict(name="../x"), "name must be a plain folder name"),
        (dict(name=""), "name must be a plain folder name"),
    ],
)
def test_a_value_that_cannot_be_trained_with(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options).validate()


@pytest.mark.parametrize(
    "options",
    [dict(batch_size=1.5), dict(batch_size=True), dict(lr="0.1"), dict(flip=1), dict(name=None)],
)
def test_a_value_of_another_type(options):
    with pytest.raises(TypeError, match=f"config: {next(iter(options))} must be"):
        TrainConfig(**options).validate()


def test_survives_json():
    config = TrainConfig(name="inf", lr=3e-4, dropout=True)
    assert (
        TrainConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config
    )
    limited = TrainConfig(max_dataset_size=7)
    assert TrainConfig.from_dict(limited.to_dict()) == limited


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match=r"batchsize is no option \(did you mean batch_size\?\)"):
        TrainConfig.from_dict({"batchsize": 2})


def test_total_steps():
    assert TrainConfig().total_steps(10) == 2000
    assert TrainConfig(epoch_count=150).total_steps(10) == 510
    assert TrainConfig(max_steps=7).total_steps(10) == 7
    assert TrainConfig(max_steps=7000).total_steps(10) == 2000


def test_precision_on_a_cpu():
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu).name == "fp32"
    assert resolve_precision("auto", cpu).half is None
    assert resolve_precision("bf16", cpu).half is torch.bfloat16
    assert resolve_precision("fp16", cpu).scaled and not resolve_precision("bf16", cpu).scaled
    assert describe(resolve_precision("fp32", cpu), tf32=True) == "fp32"


class Gpu:
    """Stands in for torch.cuda."""

    def __init__(self, monkeypatch, bf16):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")


def test_precision_on_a_gpu(monkeypatch):
    cuda = torch.device("cuda")
    Gpu(monkeypatch, bf16=True)
    assert resolve_precision("auto", cuda).name == "bf16"
    assert describe(resolve_precision("fp32", cuda), tf32=True) == "fp32 (TF32 convolutions)"
    assert describe(resolve_precision("fp32", cuda), tf32=False) == "fp32 (no TF32)"
    Gpu(monkeypatch, bf16=False)
    assert resolve_precision("auto", cuda).name == "fp16"
    with pytest.raises(ValueError, match="Tesla T4, which has no bf16"):
        resolve_precision("bf16", cuda)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == resolve_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device must exist, got cuda: .* Use --device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto").type == "cuda"
    assert resolve_device("cuda:1").index == 1
    with pytest.raises(ValueError, match="one of cuda:0 to cuda:1, got cuda:2"):
        resolve_device("cuda:2")
