# SPDX-License-Identifier: MIT
"""Files of torch.save, honest and hostile: read as they are, or refused before anything acts."""

import io
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from cyclegan_fast.errors import WeightsError
from cyclegan_fast.io.safe_pth import read_pth


def a_state(seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = OrderedDict()
    state["model.1.weight"] = torch.randn(4, 3, 7, 7, generator=generator)
    state["model.1.bias"] = torch.randn(4, generator=generator)
    state["half"] = torch.randn(5, generator=generator).half()
    state["brain"] = torch.randn(2, 2, generator=generator).bfloat16()
    state["counter"] = torch.tensor(7)
    state["empty"] = torch.zeros(0, 3)
    shared = torch.arange(12.0)
    state["view"] = shared[2:8].view(2, 3).t()
    state["base"] = shared
    return state


def assert_same(read, wrote):
    assert list(read) == list(wrote)
    for name, value in wrote.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_read_whole(tmp_path, zipped):
    wrote = a_state()
    path = tmp_path / "latest_net_G_A.pth"
    torch.save(wrote, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_pth(path), wrote)


def test_module_state_dict_with_metadata_and_parameters(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    assert_same(read_pth(tmp_path / "a.pth"), net.state_dict())
    parameters = dict(net.named_parameters())
    torch.save(parameters, tmp_path / "b.pth")
    assert_same(read_pth(tmp_path / "b.pth"), {k: v.detach() for k, v in parameters.items()})


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_keeps_its_nesting_and_loses_the_rest(tmp_path, zipped):
    net = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    adam.step()
    path = tmp_path / "checkpoint.pth"
    wrote = {"epoch": 3, "lr": 2e-4, "opt": adam.state_dict(), "nets": {"G": net.state_dict()}}
    torch.save(wrote, path, _use_new_zipfile_serialization=zipped)
    read = read_pth(path)
    assert_same(read["nets"]["G"], net.state_dict())
    assert "epoch" not in read


def test_a_file_by_python_2_and_torch_0_3(tmp_path):
    """Byte strings for names and `_rebuild_tensor` without hooks, as torch 0.3 wrote them."""
    values = torch.arange(6.0).view(2, 3)
    body = (
        b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x0emodel.1.weightq\x03"
        b"ctorch._utils\n_rebuild_tensor\nq\x04((U\x07storageq\x05ctorch\nFloatStorage\nq\x06"
        b"U\x0294q\x07U\x03cpuq\x08K\x06Ntq\tQK\x00K\x02K\x03\x86q\nK\x03K\x01\x86q\x0btq\x0cRq\re"
        b"a\x85q\x0eRq\x0f."
    )
    path = tmp_path / "old.pth"
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001):
            pickle.dump(value, file, protocol=2)
        sizes = {"short": 2, "int": 4, "long": 4}
        info = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
        pickle.dump(info, file, protocol=2)
        file.write(body)
        pickle.dump(["94"], file, protocol=2)
        file.write(struct.pack("<q", 6) + values.numpy().tobytes())
    assert_same(read_pth(path), {"model.1.weight": values})


class Payload:
    """Touches a file when unpickled by anything that runs pickles."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def storage_pickle(numel, shape, stride, offset=0, key="0"):
    """The table of contents of a zip file that describes one float tensor at will."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, key, "cpu", numel)
            return None

    rebuild = Payload(
        torch._utils._rebuild_tensor_v2, Storage(), offset, shape, stride, False, OrderedDict()
    )
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump({"w": rebuild})
    return stream.getvalue()


def torch_zip(path, data_pkl, records=(("0", b"\0" * 16),), method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/data.pkl", data_pkl)
        archive.writestr("a/byteorder", b"little")
        for key, data in records:
            archive.writestr(f"a/data/{key}", data)
        archive.writestr("a/version", b"3\n")


def hostile_pickles(canary):
    command = f"touch {canary}"
    path = str(canary)
    return {
        "system": Payload(os.system, command),
        "exec": Payload(exec, f"open({path!r}, 'w')"),
        "eval": Payload(eval, f"open({path!r}, 'w')"),
        "open": Payload(open, path, "w"),
        "popen": Payload(subprocess.Popen, ["touch", path]),
        "getattr": Payload(getattr, "text", "upper"),
        "bytearray": Payload(bytearray, 1 << 36),
        "numpy": np.float64(1.0),
        "size": Payload(torch.Size, [1 << 40]),
        "module": torch.nn.Linear(2, 2),
        "device": torch.device("cpu"),
        "set": {1, 2},
        "bytes": b"x",
        "complex": 1j,
    }


@pytest.mark.parametrize("where", ["alone", "inside", "legacy", "bare"])
def test_programs_are_refused_by_name_and_never_run(tmp_path, where):
    canary = tmp_path / "canary"
    for name, value in hostile_pickles(canary).items():
        path = tmp_path / f"{name}.pth"
        value = {"w": torch.zeros(2), "x": value} if where == "inside" else value
        if where == "bare":
            path.write_bytes(pickle.dumps(value, protocol=2))
        else:
            torch.save(value, path, _use_new_zipfile_serialization=where != "legacy")
        with pytest.raises(WeightsError) as caught:
            read_pth(path)
        text = str(caught.value)
        assert str(path) in text and "state_dict" in text
        assert "weights_only=False" not in text and "add_safe_globals" not in text
        if where == "inside" and name in ("system", "numpy", "module"):
            assert "import" in text
        assert not canary.exists()


def test_the_canary_of_these_files_sings_when_they_are_run(tmp_path):
    """The hostile files are hostile: an unpickler without care runs them."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(hostile_pickles(canary)["system"], protocol=2))
    assert canary.exists()


CLAIMS = {
    "stride 0 over 2^40": (4, (1 << 40,), (0,), 0),
    "more than the storage": (4, (5,), (1,), 0),
    "behind the storage": (4, (2,), (1,), 3),
    "far stride": (4, (2,), (1 << 50,), 0),
    "negative stride": (4, (2,), (-1,), 1),
    "negative offset": (4, (2,), (1,), -1),
    "negative size": (4, (-1,), (1,), 0),
    "other rank": (4, (2, 2), (1,), 0),
    "too long a storage": (1 << 50, (2,), (1,), 0),
    "too short a storage": (3, (2,), (1,), 0),
    "overflowing product": (4, (1 << 32, 1 << 32), (0, 0), 0),
    "a float for a size": (4, (2.0,), (1,), 0),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_tensor_must_fit_the_bytes_that_are_there(tmp_path, claim):
    numel, shape, stride, offset = claim
    torch_zip(tmp_path / "a.pth", storage_pickle(numel, shape, stride, offset))
    with pytest.raises(WeightsError, match="a.pth: refused before it was opened"):
        read_pth(tmp_path / "a.pth")


def test_the_hand_made_file_is_read_when_its_claim_is_true(tmp_path):
    data = np.arange(4, dtype=np.float32).tobytes()
    torch_zip(tmp_path / "a.pth", storage_pickle(4, (2, 2), (1, 2)), [("0", data)])
    assert torch.equal(read_pth(tmp_path / "a.pth")["w"], torch.arange(4.0).view(2, 2).t())


def test_archives_that_unfold_or_disagree_are_refused(tmp_path):
    good = storage_pickle(4, (4,), (1,))
    torch_zip(tmp_path / "bomb.pth", good, [("0", b"\0" * (1 << 20))], zipfile.ZIP_DEFLATED)
    torch_zip(tmp_path / "missing.pth", good, [("1", b"\0" * 16)])
    torch_zip(tmp_path / "long.pth", good, [("0", b"\0" * 20)])
    with pytest.warns(UserWarning, match="Duplicate"):
        torch_zip(tmp_path / "twice.pth", good, [("0", b"\0" * 16)] * 2)
    torch_zip(tmp_path / "good.pth", good)
    data = (tmp_path / "good.pth").read_bytes()
    (tmp_path / "tail.pth").write_bytes(data + b"more")
    (tmp_path / "two.pth").write_bytes(data + data)
    local = data.index(b"PK\3\4", 10)
    (tmp_path / "renamed.pth").write_bytes(
        data[: local + 30] + data[local + 30 :].replace(b"a/byteorder", b"b/byteorder", 1)
    )
    entry = data.rindex(b"PK\1\2")
    overlap = data[: entry + 42] + struct.pack("<L", 0) + data[entry + 46 :]
    (tmp_path / "overlap.pth").write_bytes(overlap)
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "picture.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    words = {
        "bomb": "compressed",
        "missing": "no such record",
        "long": "20 bytes",
        "twice": "twice",
        "tail": "something follows",
        "renamed": "own header",
        "empty": "empty",
        "picture": "no file of torch.save",
    }
    assert torch.equal(read_pth(tmp_path / "good.pth")["w"], torch.zeros(4))
    for name in ("two", "overlap", *words):
        with pytest.raises(WeightsError, match=words.get(name, "refused")):
            read_pth(tmp_path / f"{name}.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_is_refused_or_changes_nothing(tmp_path, zipped):
    """Files cut short at every twentieth, and 200 with one changed byte: an error or equality.

    The old format has no checksum, so there a changed weight goes unnoticed; nothing else may.
    """
    wrote = a_state()
    path = tmp_path / "a.pth"
    torch.save(wrote, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for twentieth in range(20):
        path.write_bytes(whole[: len(whole) * twentieth // 20])
        with pytest.raises(WeightsError):
            read_pth(path)
    dice = random.Random(0)
    refused = 0
    for _ in range(200):
        position = dice.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[position] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        try:
            read = read_pth(path)
        except WeightsError:
            refused += 1
            continue
        if zipped:
            assert all(torch.equal(read[k], wrote[k]) for k in read)
        assert sum(v.numel() for v in read.values()) <= sum(v.numel() for v in wrote.values())
    assert refused > (100 if zipped else 20)


def test_memory_stays_near_the_file_size(tmp_path):
    """A reader in its own process: 1.5 times the file and 200 MB beside torch itself."""
    state = {"w": torch.zeros(20_000_000)}  # 80 MB
    torch.save(state, tmp_path / "big.pth")
    torch_zip(tmp_path / "bomb.pth", storage_pickle(1 << 30, (1 << 30,), (1,)))
    torch_zip(
        tmp_path / "deflated.pth",
        storage_pickle(1 << 28, (1 << 28,), (1,)),
        [("0", bytes(1 << 28))],
        zipfile.ZIP_DEFLATED,
    )
    program = """
import resource, sys, torch
from cyclegan_fast.io.safe_pth import read_pth
rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = rss()
for path in sys.argv[1:]:
    try: read_pth(path)
    except Exception as error: print(error)
print(rss() - before)
"""
    paths = [str(tmp_path / f"{name}.pth") for name in ("big", "bomb", "deflated")]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert int(lines[-1]) <= 1.5 * 80 + 200
