"""The named recipes, which are kept with their architectures (jaxcryo/models/ARCHITECTURE/config.py).

paper, yu4u
    command   python train.py --arch yu4u --fold 0
    hardware  one GPU, of 16 GB (a T4) or more
    hours     about 6 on a T4 (float16), 1.5 on an A100 (bfloat16)
    score     the authors' 0.783 private / 0.788 public is for four yu4u and three tattaka models averaged; they give
              none for a single model

paper, tattaka
    command   python train.py --arch tattaka --fold 0
    hardware  one GPU, of 16 GB (a T4) or more
    hours     about 3 on a T4 (float16), 0.7 on an A100 (bfloat16)
    score     as above

The hours are estimates from operations; the authors give none, and nobody has measured them with this code. A forward
pass of one window takes 89 (yu4u) or 226 (tattaka) GFLOP by XLA's count, a training step three times as much. An epoch
of six runs of 1782 or 810 windows has 334 or 151 steps of 32: 183 or 82 PFLOP in 64 or 25 epochs, and a tenth more for
validation. Assumed are 10 TFLOP/s on the T4 and 40 on the A100, an eighth of their peaks.

No recipe names a precision or a number of parts of a batch: both follow from the device (jaxcryo/training/device.py).

`small`: the bundled networks, learned from phantoms on two CPU cores in a quarter of an hour each
(docs/demo.md has commands, times and scores). `tiny`: for tests, seconds.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from jaxcryo.config import TrainConfig
from jaxcryo.errors import InputError
from jaxcryo.models import architecture
from jaxcryo.serialize import from_plain, to_plain


def recipe(arch: str, size: str = "paper", *, classes: int = 6) -> TrainConfig:
    """The training of one architecture in one size.

    Raises:
        InputError: there is no such architecture, or it has no such size.
    """
    recipes = architecture(arch).recipes
    if size not in recipes:
        raise InputError(f"{arch} has no size {size!r}; expected one of {', '.join(recipes)}")
    return recipes[size](classes)


def with_values(config: TrainConfig, assignments: Sequence[str]) -> TrainConfig:
    """The recipe with some numbers changed, each as `optim.ema_decay=0.99`; values are written as in JSON.

    Raises:
        InputError: there is no such number, or the value does not suit it.
    """
    plain = to_plain(config)
    names = sorted(_names(plain))
    for assignment in assignments:
        name, is_assigned, text = assignment.partition("=")
        if not is_assigned:
            raise InputError(f"--set {assignment}: expected NAME=VALUE, e.g. optim.ema_decay=0.99")
        if name not in names or name in _DECIDED_ELSEWHERE:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or [n for n in names if "." in n][:3]
            raise InputError(f"--set {name}: the recipe has no such number; the nearest are {', '.join(near)}")
        *path, last = name.split(".")
        record = plain
        for part in path:
            record = record[part]
        try:
            record[last] = json.loads(text)
        except ValueError:
            record[last] = text
    return from_plain(TrainConfig, plain, "--set")


_DECIDED_ELSEWHERE = ("arch", "size", "model.arch", "model.classes")


def _names(plain: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The full names of all values."""
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.")
        elif prefix + name not in _DECIDED_ELSEWHERE:
            yield prefix + name
