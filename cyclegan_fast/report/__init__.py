# SPDX-License-Identifier: MIT
"""What a run leaves for people: loss curves, an evaluation, one HTML page."""
