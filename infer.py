"""Find particles: `python infer.py --help`."""

import sys

from jaxcryo.cli.infer import main

if __name__ == "__main__":
    sys.exit(main(None))
