"""Makes the golden cases and this folder's helpers importable."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path += [str(HERE.parent), str(HERE)]
