# SPDX-License-Identifier: MIT
"""The whole iteration timed, ours against what a user could run instead; needs no compiled kernel.

`cyclegan-fast benchmark` and the repository's benchmarks/ are two ways into it.
"""
