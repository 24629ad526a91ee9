"""`python -m jaxcryo.picks`: converts picks between formats, and applies other thresholds to them."""

import sys

from jaxcryo.cli.picks import main

if __name__ == "__main__":
    sys.exit(main(None))
