# SPDX-License-Identifier: MIT
"""Files in and out: weights of any era, checked before they are opened, and pictures."""
