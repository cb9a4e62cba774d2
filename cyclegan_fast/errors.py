# SPDX-License-Identifier: MIT
"""The package's own exceptions; everything else is a plain ValueError or TypeError."""


class CycleganFastError(Exception):
    """Base of every error that is not a wrong argument; its text says what, why and what to do."""


class BackendUnavailableError(CycleganFastError, RuntimeError):
    """A back end was asked for by name and cannot serve this op, device or dtype."""


class DoubleBackwardError(CycleganFastError, RuntimeError):
    """A second derivative was asked of a fused op, which has first derivatives only."""

    def __init__(self, op: str) -> None:
        super().__init__(
            f"{op}: the fused op has first derivatives only, and a second one was asked for "
            "(create_graph=True, as a gradient penalty does). Use cyclegan_fast.restore(net) on "
            'the network, or run it inside cyclegan_fast.backend.use_backend("reference").'
        )


class WeightsError(CycleganFastError, ValueError):
    """A weights file cannot be used: what it holds, what was expected, what to do."""
