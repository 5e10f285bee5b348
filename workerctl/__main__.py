"""`python -m workerctl`, and the entry point of the installed command."""

import sys

from workerctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
