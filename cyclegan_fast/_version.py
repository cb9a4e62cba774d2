# SPDX-License-Identifier: MIT
"""The version, in one place: the build, the package and saved files read it here."""

__version__ = "0.1.0"
