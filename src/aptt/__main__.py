"""``python -m aptt`` is the command line."""

import sys

from aptt.cli import main

if __name__ == "__main__":
    sys.exit(main())
