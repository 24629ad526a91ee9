"""Convert models: `python -m convert --help`."""

import sys

from jaxcryo.cli.convert import main

if __name__ == "__main__":
    sys.exit(main(None))
