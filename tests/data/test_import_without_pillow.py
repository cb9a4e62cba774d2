# SPDX-License-Identifier: MIT
import subprocess
import sys

PROGRAM = """
import sys

BLOCKED = {"PIL", "tyro", "rich", "yaml", "matplotlib", "jinja2", "safetensors"}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import cyclegan_fast.data, cyclegan_fast.data.seasons, cyclegan_fast.metrics, cyclegan_fast.draws
import numpy as np
from cyclegan_fast.data import Preprocess, to_tensor

next(cyclegan_fast.data.seasons.paint("test", 1, 16))
pixels = np.zeros((16, 16, 3), np.uint8)
cut = Preprocess(16, 8, "crop").crop_and_flip(pixels, (0.5, 0.5), True)
print(tuple(to_tensor([cut]).shape))
"""


def test_data_and_metrics_need_torch_and_numpy_alone():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 3, 8, 8)"
