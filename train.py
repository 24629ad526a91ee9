"""Train a network: `python train.py --help`."""

import sys

from jaxcryo.cli.train import main

if __name__ == "__main__":
    sys.exit(main(None))
