"""Run the command ``robustfer`` by ``python -m robustfer``."""

import sys

from robustfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
