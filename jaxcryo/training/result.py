"""What a finished training ended with, as a file: whoever starts it again is told, and nothing is computed anew."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from jaxcryo.domain import ParticleType, types_from_json, types_to_json
from jaxcryo.errors import InputError
from jaxcryo.files import write_text
from jaxcryo.metric import Counts, Score
from jaxcryo.training.validation import Validation

_NAME = "result.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The last validation's scores."""

    step: int
    types: tuple[ParticleType, ...]
    """With the chosen thresholds."""
    chosen: Score
    best_thresholds: tuple[float, ...]
    best: Score

    @classmethod
    def of(cls, step: int, validation: Validation) -> Result:
        """The part of a validation that is kept."""
        return cls(
            step=step,
            types=validation.types,
            chosen=dataclasses.replace(validation.chosen, types=validation.types),
            best_thresholds=validation.best_thresholds,
            best=dataclasses.replace(validation.best, types=validation.types),
        )


def write_result(folder: pathlib.Path, result: Result) -> None:
    """Marks the run in the folder as finished."""
    plain = {
        "step": result.step,
        "weighted_f4": result.chosen.weighted_f4,
        "weighted_f4_best": result.best.weighted_f4,
        "types": types_to_json(result.types),
        "best_thresholds": list(result.best_thresholds),
        "chosen": [dataclasses.asdict(c) for c in result.chosen.counts],
        "best": [dataclasses.asdict(c) for c in result.best.counts],
    }
    write_text(folder / _NAME, json.dumps(plain, indent=1) + "\n")


def read_result(folder: pathlib.Path) -> Result | None:
    """The result of a finished run; None where it is not finished, or its result cannot be used."""
    try:
        plain: dict[str, Any] = json.loads((folder / _NAME).read_text())
        types = types_from_json(plain["types"])
        chosen, best = (
            Score(types=types, counts=tuple(Counts(**c) for c in plain[name])) for name in ("chosen", "best")
        )
        thresholds = tuple(map(float, plain["best_thresholds"]))
        return Result(step=plain["step"], types=types, chosen=chosen, best_thresholds=thresholds, best=best)
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None
