# SPDX-License-Identifier: MIT
"""Triton for the null CUDA runtime: launchers run as they are, kernels are noted and not compiled.

What the kernels compute is the interpreter's to show (tests/interpreter), and that they compile
tests/ops/test_triton_compiled.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from null_cuda import Runtime

ARCHITECTURE = 90
MOST_BLOCKS = (2**31 - 1, 65535, 65535)


class _Driver:
    """Takes the place of Triton's CUDA driver and of its utilities."""

    def __init__(self) -> None:
        self.utils = self

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", ARCHITECTURE, 32)

    def get_current_device(self) -> int:
        return torch.cuda.current_device()

    def set_current_device(self, device: int) -> None:
        torch.cuda.set_device(device)

    def get_current_stream(self, device: int | None = None) -> int:
        return torch.cuda.current_stream(device).cuda_stream

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", torch.cuda.current_device())

    def get_device_properties(self, _device: int) -> dict[str, int]:
        properties = torch.cuda.get_device_properties(0)
        return {
            "max_shared_mem": properties.shared_memory_per_block_optin,
            "max_num_regs": 65536,
            "multiprocessor_count": properties.multi_processor_count,
            "warpSize": 32,
        }


class _Kernel:
    """What Triton's compiler would return."""

    function = packed_metadata = None

    def __init__(self, name: str, runtime: Runtime) -> None:
        self._name, self._runtime = name, runtime

    def launch_metadata(self, *_arguments: object) -> None:
        return None

    def run(self, x: int, y: int, z: int, stream: int, *_arguments: object) -> None:
        for blocks, most in zip((x, y, z), MOST_BLOCKS, strict=True):
            if not 0 < blocks <= most:
                raise RuntimeError(f"{self._name}: no GPU launches a grid of {x} x {y} x {z}")
        self._runtime.note(f"triton {self._name}", stream)


def install(runtime: Runtime) -> None:
    """Make Triton launch by the null runtime; before the first launch."""
    try:
        import triton.compiler
        from triton.runtime.driver import driver
    except ImportError:
        return
    driver.set_active(_Driver())

    def compiled(source: Any, **_how: object) -> _Kernel:
        return _Kernel(source.fn.__name__, runtime)

    triton.compiler.compile = compiled  # which a kernel imports when it is first launched
