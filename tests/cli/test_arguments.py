# SPDX-License-Identifier: MIT
"""From the command line, YAML files and upstream's spellings to the same options."""

import dataclasses
import math
import subprocess
import sys

import pytest
import yaml

from cyclegan_fast.cli.arguments import modern, take_config, yaml_flags
from cyclegan_fast.cli.failures import UsageError
from cyclegan_fast.cli.train import TrainOptions, read_options
from cyclegan_fast.training.config import TrainConfig


def config(line, **changes):
    """The options of a command line; changes are what it must be, all else the default."""
    options, notes = read_options(line.split())
    assert options.training == dataclasses.replace(TrainConfig(), **changes)
    return notes


def test_defaults_are_upstreams():
    config("")
    assert TrainConfig().lambda_identity == 0.5 and TrainConfig().n_epochs == 100


def test_a_command_line_of_upstream_2025():
    config(
        "--dataroot ./datasets/maps --name maps_cyclegan --model cycle_gan --use_wandb "
        "--netG resnet_6blocks --netD n_layers --n_layers_D 4 --ngf 32 --ndf 16 --norm batch "
        "--init_type xavier --init_gain 0.1 --no_dropout --dataset_mode unaligned "
        "--direction BtoA --serial_batches --num_threads 2 --batch_size 3 --load_size 300 "
        "--crop_size 280 --max_dataset_size inf --preprocess scale_width_and_crop --no_flip "
        "--display_winsize 256 --epoch latest --load_iter 0 --verbose --display_freq 7 "
        "--update_html_freq 9 --print_freq 5 --no_html --save_latest_freq 11 "
        "--save_epoch_freq 2 --save_by_iter --phase val --n_epochs 3 --n_epochs_decay 4 "
        "--beta1 0.6 --lr 1e-3 --gan_mode vanilla --pool_size 10 --lr_policy cosine "
        "--lr_decay_iters 8 --lambda_A 1 --lambda_B 2 --lambda_identity 0 "
        "--wandb_project_name x --epoch_count 1 --input_nc 1 --output_nc 1",
        dataroot="./datasets/maps", name="maps_cyclegan", netG="resnet_6blocks", netD="n_layers",
        n_layers_D=4, ngf=32, ndf=16, norm="batch", init_type="xavier", init_gain=0.1,
        direction="BtoA", serial_batches=True, num_threads=2, batch_size=3, load_size=300,
        crop_size=280, max_dataset_size=math.inf, preprocess="scale_width_and_crop", flip=False,
        display_freq=7, print_freq=5, save_latest_freq=11, save_epoch_freq=2, save_by_iter=True,
        phase="val", n_epochs=3, n_epochs_decay=4, beta1=0.6, lr=1e-3, gan_mode="vanilla",
        pool_size=10, lr_policy="cosine", lr_decay_iters=8, lambda_A=1.0, lambda_B=2.0,
        lambda_identity=0.0, input_nc=1, output_nc=1,
    )  # fmt: skip


def test_a_command_line_of_upstream_2017():
    notes = config(
        "--dataroot ./d --loadSize 143 --fineSize 128 --batchSize 4 --nThreads 2 --niter 5 "
        "--niter_decay 6 --which_direction BtoA --which_model_netG resnet_6blocks "
        "--which_model_netD basic --which_epoch latest --resize_or_crop resize_and_crop "
        "--identity 0.1 --no_lsgan --lr_policy lambda --gpu_ids -1 --display_id -1 "
        "--display_port 8097 --display_server http://localhost --display_ncols 4",
        dataroot="./d", load_size=143, crop_size=128, batch_size=4, num_threads=2, n_epochs=5,
        n_epochs_decay=6, direction="BtoA", netG="resnet_6blocks", lambda_identity=0.1,
        gan_mode="vanilla", device="cpu",
    )  # fmt: skip
    assert "--loadSize is called --load_size now" in notes
    assert "--lr_policy lambda is called linear here" in notes
    assert "--display_id has no effect here" in notes


def test_hyphens_equals_signs_and_the_last_word():
    config("--batch-size=3 --no-flip --max-dataset-size 7", batch_size=3, flip=False,
           max_dataset_size=7.0)  # fmt: skip
    config("--lr 1 --lr 2", lr=2.0)
    config("--norm syncbatch", norm="batch")
    config("--norm=sync_instance")
    config("--gpu_ids=1", device="cuda:1")
    assert modern(["--gpu_ids", "0,1"]) == (
        ["--device", "cuda:0"],
        ["cuda:0 of --gpu_ids 0,1 is used; --gpus N trains on several"],
    )
    assert modern(["-o", "x", "--", "--loadSize"])[0][:2] == ["-o", "x"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--model pix2pix", "trains CycleGAN only"),
        ("--dataset_mode aligned", "unpaired"),
        ("--epoch 20", "--resume goes on from the newest save"),
        ("--suffix {netG}", "--name"),
        ("--gpu_ids zero", "must be numbers"),
        ("--config", "needs the name"),
        ("--config absent.yaml", "no such file"),
    ],
)
def test_what_cannot_be_done_is_said(line, said):
    with pytest.raises(UsageError, match=said):
        read_options(line.split())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--lamda_A 3", "--lambda_A"),
        ("--batch 3", "--batch_size"),
        ("--netG resnet_8blocks", "resnet_9blocks"),
        ("--lr fast", "--lr"),
    ],
)
def test_slips_are_answered_with_what_was_meant(line, said, run):
    done = run("train", *line.split())
    assert done.status == 2
    assert said in done.err


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_values_mean_what_the_options_types_say(tmp_path):
    text = """
# a comment
lr: 1e-3
name: 001
dataroot: on
flip: no
no_dropout: true
batchSize: 4
max_dataset_size: inf
lr_policy: lambda
"""
    path = write(tmp_path / "a.yaml", text)
    config(f"--config {path} --batch_size 5", lr=1e-3, name="001", dataroot="on", flip=False,
           batch_size=5, max_dataset_size=math.inf, lr_policy="linear")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lamda_A: 1", "lamda_A is no option .did you mean lambda_A"),
        ("- 1", "must hold lines"),
        ("lr: [1, 2]", "lr must be one value"),
        ("flip: maybe", "flip must be true or false"),
        ("a: b: c", "no YAML"),
        ("lr: {x: !!python/object/apply:os.system [ls]}", "lr must be one value"),
    ],
)
def test_wrong_yaml_is_refused_with_its_name(tmp_path, text, said):
    with pytest.raises(UsageError, match=said) as caught:
        yaml_flags(write(tmp_path / "odd.yaml", text), TrainOptions)
    assert "odd.yaml" in str(caught.value)


def test_an_empty_yaml_file_changes_nothing(tmp_path):
    assert yaml_flags(write(tmp_path / "a.yaml", "# nothing\n"), TrainOptions) == []


def test_take_config_in_both_spellings():
    assert take_config(["a", "--config=b", "c"])[0] == ["a", "c"]
    assert str(take_config(["--config", "b"])[1]) == "b"


def test_print_config_is_a_config(tmp_path, run):
    line = ["--lr", "3e-4", "--no_flip", "--netG", "unet_128", "--crop_size", "128", "--name", "é"]
    printed = run("train", *line, "--print_config")
    assert printed.status == 0
    values = yaml.safe_load(printed.out)
    assert set(values) == {field.name for field in dataclasses.fields(TrainConfig)}
    path = write(tmp_path / "again.yaml", printed.out)
    assert run("train", "--config", path, "--print_config").out == printed.out
    options, _ = read_options(["--config", str(path)])
    assert (options.training.lr, options.training.flip, options.training.name) == (3e-4, False, "é")


@pytest.mark.parametrize("command", ["demo", "train", "translate", "benchmark", "tune", "doctor"])
def test_help_names_every_option(command, run):
    done = run(command, "--help")
    assert done.status == 0 and f"cyclegan-fast {command}" in done.out
    if command == "train":
        for field in dataclasses.fields(TrainConfig):
            assert f"--{field.name}" in done.out, field.name


def test_usage_and_unknown_commands(run):
    for words in (["--help"], ["-h"], ["help"]):
        done = run(*words)
        assert done.status == 0 and "translate" in done.out
    assert run("--version").out.startswith("cyclegan-fast ")
    nothing = run()
    assert nothing.status == 2 and "no command given" in nothing.err
    slip = run("trian")
    assert slip.status == 2 and "did you mean train?" in slip.err and not slip.out


def test_as_a_module_and_help_without_heavy_imports():
    program = (
        "import sys; from cyclegan_fast.cli import main; main(['--help']); "
        "print([m for m in ('torch', 'tyro', 'rich', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    version = subprocess.run(
        [sys.executable, "-m", "cyclegan_fast", "--version"], capture_output=True, text=True
    )
    assert version.returncode == 0 and version.stdout.startswith("cyclegan-fast")
