"""What thresholds are chosen for."""

from __future__ import annotations

import typing
from typing import Literal

Aim = Literal["recall", "balanced", "precision"]
"""`recall`: the highest F4 that is to be expected, so that few particles are missed; `balanced`: the highest F1;
`precision`: as many picks as can be had with 95 % of them right."""
AIMS: tuple[Aim, ...] = typing.get_args(Aim)
