"""`python -m jaxcryo`: the same as the command `jaxcryo`."""

import sys

from jaxcryo.cli.console import main

if __name__ == "__main__":
    sys.exit(main())
