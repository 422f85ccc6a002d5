"""`python -m dits`."""

import sys

from dits.cli import main

if __name__ == "__main__":
    sys.exit(main())
