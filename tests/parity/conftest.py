"""Left out of collection where PyTorch or timm is not installed."""

import importlib.util
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path += [str(HERE.parent), str(HERE)]
collect_ignore = (
    []
    if all(importlib.util.find_spec(m) for m in ("torch", "timm"))
    else ["test_tattaka.py", "test_timm.py", "test_torch_files.py", "test_yu4u.py"]
)
