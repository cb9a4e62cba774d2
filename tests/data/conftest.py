# SPDX-License-Identifier: MIT
import pytest
from picture_files import fill


@pytest.fixture
def put(tmp_path):
    def put(data: bytes, name: str = "picture.png"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return put


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "data", trainA=5, trainB=8)
