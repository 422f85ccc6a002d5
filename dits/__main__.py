"""`python -m dits`."""

import sys

if __name__ == "__main__":  # worker processes import this module too, and need nothing of it
    from dits.cli.parser import main

    sys.exit(main())
