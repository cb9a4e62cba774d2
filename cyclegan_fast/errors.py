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


class DataError(CycleganFastError, ValueError):
    """A data folder, or a picture in it, is not what training or translation needs."""


class BadImageError(DataError):
    """A file cannot be used as a picture; ``path`` and ``reason`` say which and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


def printable(path: object) -> str:
    """Return a path as text that any stream can print: line breaks and stray bytes are escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size_text(size: float) -> str:
    """Return a number of bytes for people: "1.2 GB", "3.4 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


class NonFiniteError(CycleganFastError, ArithmeticError):
    """A loss, weight or moment became infinite or not a number; the run stops before saving it."""


class LossScaleError(CycleganFastError, ArithmeticError):
    """fp16 training stands still: step after step overflows at every loss scale."""


class CheckpointError(CycleganFastError, RuntimeError):
    """A checkpoint could not be written, or what was found cannot be loaded."""


class RanksDifferError(CycleganFastError, ValueError):
    """Ranks of one run were started with other options or see other pictures than rank 0."""


class RankLostError(CycleganFastError, RuntimeError):
    """Another rank of the run has ended or does not answer; the run cannot go on without it."""


class TableError(CycleganFastError, ValueError):
    """A file of measured convolutions cannot be used; the text says which, why and what to do."""


class CaptureError(CycleganFastError, RuntimeError):
    """The training step could not be captured in a CUDA graph.

    Args:
        reason: what went wrong.
        broken: whether CUDA answers with nothing but errors since, so that the process cannot go
            on.
    """

    def __init__(self, reason: str, *, broken: bool) -> None:
        self.reason, self.broken = reason, broken
        advice = (
            "CUDA answers with errors since, which only a new process can mend: start again with "
            "--resume --cuda_graph off."
            if broken
            else "A network that reads its values on the host, say by .item(), or copies from it "
            "cannot be replayed. Use --cuda_graph auto or off, which run it plainly."
        )
        super().__init__(f"the step cannot be captured as a CUDA graph: {reason}. {advice}")
