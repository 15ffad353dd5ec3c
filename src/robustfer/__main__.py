"""``python -m robustfer`` is the command ``robustfer``."""

import sys

from robustfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
