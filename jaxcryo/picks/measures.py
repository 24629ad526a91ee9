"""What was measured of picks besides their positions, written to and read from the cells of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxcryo.domain import MEASURES, ParticleType, Picks


def measures_of(
    cells: Mapping[str, object], types: Sequence[ParticleType], names: Sequence[str] = MEASURES
) -> list[float]:
    """The `Picks.measured` of one pick, by name; the second type is given by its own name."""
    index_of = {t.name: float(i) for i, t in enumerate(types)}
    return [index_of.get(str(cells.get(names[0])), np.nan), *(_number(cells.get(name)) for name in names[1:])]


def shown_measures(picks: Picks) -> dict[str, list[str | float | None]]:
    """The inverse of `measures_of` for all picks; None where a pick has none."""
    return {
        name: [
            None if np.isnan(v) else picks.types[int(v)].name if name == "second_type" else float(v)
            for v in picks.measured[name]
        ]
        for name in MEASURES
        if name in picks.measured
    }


def _number(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return np.nan
    return number if np.isfinite(number) else np.nan
