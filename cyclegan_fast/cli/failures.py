# SPDX-License-Identifier: MIT
"""How a command fails: a short message that says what, why and what to do, and an exit status."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable

from cyclegan_fast.errors import CycleganFastError, DataError, printable

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class UsageError(CycleganFastError, ValueError):
    """The command cannot be run as it was typed."""


class Failure(CycleganFastError, RuntimeError):
    """The command was well typed and did not succeed."""


def guarded(program: str, command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command and turn the errors that a user can mend into messages.

    Args:
        program: what the message begins with, e.g. "cyclegan-fast train".
        command: takes its arguments, returns its exit status.
        arguments: what was typed; ``--traceback`` among them lets every error through as it is.

    Returns:
        The command's status, or 1, 2 or 130.
    """
    if "--traceback" in arguments:
        return command([argument for argument in arguments if argument != "--traceback"])
    try:
        return command(arguments)
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        text, status = explain_os_error(error), FAILED
    # Wrong values of options, and folders that are not as they should be, are wrong usage; Failure
    # and the errors of a run are not. A plain ValueError is one of our own argument checks.
    except (UsageError, DataError) as error:
        text, status = str(error), USAGE
    except CycleganFastError as error:
        text, status = str(error), FAILED
    except (ValueError, TypeError) as error:
        if not str(error).startswith("config: "):
            raise
        text, status = str(error).removeprefix("config: "), USAGE
    print(f"{program}: error: {text}", file=sys.stderr)
    return status


def explain_os_error(error: OSError) -> str:
    """Return what the operating system refused, and what to do about it."""
    path = printable(error.filename) if error.filename else "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = _free_megabytes(error.filename)
        return (
            f"the disk is full: {path} could not be written{free}. Everything saved before is "
            "whole. Make room and run the same command again."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: {error.strerror}. Choose a folder you may write to, or change its rights."
    if error.errno is None:
        return str(error)
    return f"{path}: {error.strerror}"


def _free_megabytes(path: object) -> str:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return ""
    folder = os.path.dirname(os.path.abspath(os.fsdecode(path)))
    try:
        return f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB free there)"
    except OSError:
        return ""
