# SPDX-License-Identifier: MIT
"""``python -m cyclegan_fast`` is ``cyclegan-fast``."""

import sys

from cyclegan_fast.cli import main

sys.exit(main())
