"""Whether a model finds in bfloat16 what it finds in float32: phantoms through the whole pipeline, in OpenVINO."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from jaxcryo.config import Precision
from jaxcryo.domain import Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.metric import Score, score
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.runtime.backends import open_model
from jaxcryo.runtime.manifest import ModelEntry, read_manifest, write_manifest
from jaxcryo.runtime.openvino import cpu_has_bfloat16
from jaxcryo.runtime.precision import MAX_F4_CHANGE, is_harmless

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
LEAST_F4 = 0.1
"""Below it a model finds so little that a comparison says nothing."""
# Far from what trainings and demos take, so that a model has not seen these.
_SEED = 71_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickedPhantoms:
    """What a model found in all phantoms in one precision."""

    score: Score
    picks: int
    seconds: float
    """Of the search, the first compilation of its steps included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionComparison:
    """A model in both precisions on the same phantoms."""

    model: str
    float32: PickedPhantoms
    bfloat16: PickedPhantoms

    @property
    def change(self) -> float | None:
        """Of the weighted F4; None where the model finds too little to tell."""
        before, after = self.float32.score.weighted_f4, self.bfloat16.score.weighted_f4
        return None if before < LEAST_F4 else after - before

    @property
    def verdict(self) -> str:
        """What follows from it."""
        if self.change is None:
            return f"finds too little to tell (F4 below {LEAST_F4})"
        return "bfloat16 will be used" if is_harmless(self.change) else "float32 will be used"


def phantoms_for(entry: ModelEntry, count: int, shape_zyx: tuple[int, int, int]) -> Iterator[tuple[Volume, Picks]]:
    """Tomograms of the entry's particles on its voxels, with the truth; the same ones each time."""
    config = PhantomConfig(shape_zyx=shape_zyx, spacing_angstrom=entry.spacing_angstrom, types=entry.types)
    for number in range(count):
        yield make_phantom(config, seed=_SEED + number, name=f"phantom {number}")


def compare_precisions(
    folder: pathlib.Path,
    entry: ModelEntry,
    phantoms: Iterable[tuple[Volume, Picks]],
    *,
    on_search: Callable[[], object] = lambda: None,
) -> PrecisionComparison:
    """Both precisions of one model.

    Raises:
        InputError: this CPU has no bfloat16, or the phantoms are smaller than the model's window.
    """
    if not cpu_has_bfloat16():
        raise InputError(
            "this CPU does not compute in bfloat16, so that nothing can be measured here; leave --bfloat16"
        )
    engines = {
        precision: open_model(folder, dataclasses.replace(entry, precision=precision), "openvino")
        for precision in _PRECISIONS
    }
    truth: dict[str, Picks] = {}
    found: dict[Precision, dict[str, Picks]] = {precision: {} for precision in _PRECISIONS}
    seconds = dict.fromkeys(_PRECISIONS, 0.0)
    for volume, picks in phantoms:
        truth[volume.name] = picks
        for precision, engine in engines.items():
            began = time.monotonic()
            found[precision][volume.name] = find_picks(volume, [engine], entry.types, config=entry.inference)
            seconds[precision] += time.monotonic() - began
            on_search()
    wide, narrow = (
        PickedPhantoms(
            score=score(truth, found[precision], entry.types),
            picks=sum(map(len, found[precision].values())),
            seconds=seconds[precision],
        )
        for precision in _PRECISIONS
    )
    return PrecisionComparison(model=entry.name, float32=wide, bfloat16=narrow)


def record_changes(folder: pathlib.Path, comparisons: Sequence[PrecisionComparison]) -> None:
    """Writes into the manifest what was found, for `infer.py` to choose by."""
    changes = {c.model: c.change for c in comparisons}
    entries = [
        dataclasses.replace(e, bfloat16_f4_change=changes.get(e.name, e.bfloat16_f4_change))
        for e in read_manifest(folder)
    ]
    write_manifest(folder, entries)


def precision_rows(comparisons: Sequence[PrecisionComparison]) -> list[tuple[str, ...]]:
    """A table's heading and a row for each model."""
    rows: list[tuple[str, ...]] = [
        ("model", "weighted F4 float32", "bfloat16", "change", "limit", "picks", "seconds", "")
    ]
    for c in comparisons:
        wide, narrow = c.float32, c.bfloat16
        rows.append(
            (
                c.model,
                f"{wide.score.weighted_f4:.4f}",
                f"{narrow.score.weighted_f4:.4f}",
                "" if c.change is None else f"{c.change:+.4f}",
                f"{MAX_F4_CHANGE:g}",
                f"{wide.picks} / {narrow.picks}",
                f"{wide.seconds:.1f} / {narrow.seconds:.1f}",
                c.verdict,
            )
        )
    return rows
