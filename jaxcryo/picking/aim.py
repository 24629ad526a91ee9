"""What thresholds are chosen for."""

from __future__ import annotations

import typing
from typing import Literal

Aim = Literal["recall", "balanced", "precision"]
"""`recall`: the highest expected F4, so that few particles are missed; `balanced`: the highest expected F1;
`precision`: as many picks as possible with 95 % of them right."""
AIMS: tuple[Aim, ...] = typing.get_args(Aim)
