"""`python -m jaxcryo.score`: the official metric of picks against a dataset's known ones."""

import sys

from jaxcryo.cli.score import main

if __name__ == "__main__":
    sys.exit(main(None))
